// Interrupts and exceptions: what follows from what. SDM 3A chapter 6.
#include "hv/cpu/system.h"
#include "hv/cpu/trace.h"

namespace us::hv {
namespace {

enum class Class : uint8_t { kBenign, kContributory, kPageFault };

// SDM 3A table 6-4.
Class class_of(uint8_t vector) {
  switch (vector) {
    case kDivideError:
    case kInvalidTss:
    case kSegmentNotPresent:
    case kStackFault:
    case kGeneralProtection: return Class::kContributory;
    case kPageFault: return Class::kPageFault;
    default: return Class::kBenign;
  }
}

// SDM 3A table 6-5.
bool makes_double_fault(const Event& first, const Fault& second) {
  const bool exception = first.kind == EventKind::kFault || first.kind == EventKind::kTrap;
  const Class a = exception ? class_of(first.vector) : Class::kBenign;
  const Class b = class_of(second.vector);
  if (a == Class::kContributory) return b == Class::kContributory;
  if (a == Class::kPageFault) return b != Class::kBenign;
  return false;
}

Event event_of(const Fault& f) {
  EventKind kind = EventKind::kFault;
  if (f.software) kind = EventKind::kSoftware;
  // Neither a double fault (an abort) nor an instruction breakpoint sets RF in the saved flags.
  if (f.vector == kDoubleFault || f.vector == kMachineCheck || f.vector == kDebug)
    kind = EventKind::kTrap;
  return {.vector = f.vector, .kind = kind, .has_error = f.has_error, .error = f.error};
}

}  // namespace

uint64_t saved_flags(const Cpu& c, const Event& event) {
  const bool resumes = event.kind == EventKind::kFault || event.amid_string;
  const uint64_t rf = resumes ? flag::kRf : 0;
  // A processor clears RF with every instruction, this one only where breakpoints are looked for.
  // What stands in for hardware must not show one that was left over.
  const uint64_t stale = c.intercepts.debug || c.intercepts.msrs ? flag::kRf : 0;
  return (rflags(c) & ~stale) | rf;
}

void enter_handler_flags(Cpu& c, bool interrupt_gate) {
  constexpr uint64_t kAlways = flag::kTf | flag::kNt | flag::kRf | flag::kVm;
  c.rflags_other &= ~(kAlways | (interrupt_gate ? flag::kIf : 0));
}

bool deliver_once(Cpu& c, const Event& event, uint64_t return_rip) {
  if (long_mode(c)) return deliver_long(c, event, return_rip);
  if (protected_mode(c)) return deliver_protected(c, event, return_rip);
  return deliver_real(c, event, return_rip);
}

void deliver_event(Cpu& c, const Event& first, uint64_t return_rip) {
  const uint64_t from = linear_ip(c, c.rip);
  Event event = first;
  c.link_slot = nullptr;
  while (!deliver_once(c, event, return_rip)) {
    // Every turn raises the severity or ends: benign, then serious, then double fault, then
    // shutdown.
    const Fault second = c.fault;
    if (event.vector == kDoubleFault && event.kind == EventKind::kTrap) {
      c.shutdown = true;
      c.exit = Exit::kContinue;
      return;
    }
    const bool twice = makes_double_fault(event, second);
    event = twice ? Event{.vector = kDoubleFault, .kind = EventKind::kTrap, .has_error = true}
                  : event_of(second);
  }
  c.halted = false;
  c.interrupt_shadow = false;
  c.exit = Exit::kContinue;
  trace_async(c, from);
}

void deliver(Cpu& c, const Fault& fault, uint64_t return_rip) {
  deliver_event(c, event_of(fault), return_rip);
}

void deliver_external(Cpu& c, uint8_t vector) {
  if (vector == kNmiVector) c.nmi_blocked = true;
  deliver_event(c, {.vector = vector, .kind = EventKind::kExternal}, c.rip);
}

}  // namespace us::hv
