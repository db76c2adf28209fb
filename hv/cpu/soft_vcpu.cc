#include "hv/cpu/soft_vcpu.h"

#include "hv/cpu/address_fault.h"
#include "hv/cpu/code_cache.h"
#include "hv/cpu/debug.h"
#include "hv/cpu/handler.h"
#include "hv/cpu/sse.h"
#include "hv/cpu/trace.h"
#include "hv/cpu/translate/translator.h"

namespace us::hv {
namespace {

// Restores the limit that stepping overrides, whatever way the step ends.
class SteppingScope {
 public:
  explicit SteppingScope(Cpu& c) : c_(c) {
    c_.stepping = true;
    c_.mode.bits |= Mode::kSingle;
    c_.branch_limit.store(0, std::memory_order_relaxed);
  }
  ~SteppingScope() {
    c_.stepping = false;
    c_.mode.bits &= ~Mode::kSingle;
  }
  SteppingScope(const SteppingScope&) = delete;
  SteppingScope& operator=(const SteppingScope&) = delete;

 private:
  Cpu& c_;
};

}  // namespace

SoftVcpu::SoftVcpu(GuestMemory& memory, Bus& bus, Executor executor)
    : cpu_(std::make_unique<Cpu>(memory, bus)) {
  if (executor == Executor::kTranslate && host_fits_translation())
    translator_ = std::make_unique<Translator>(*cpu_, translate_after());
  refresh();
}
SoftVcpu::~SoftVcpu() = default;

VcpuCaps SoftVcpu::caps() const {
  return {.backend = "soft",
          .counts_instructions = true,
          .exact_alarm = true,
          .traps_rdtsc = true,
          .exact_step = true,
          .traces_pt = true};
}

StopReason SoftVcpu::run(const RunRequest& request) {
  const uint64_t limit = request.alarm.value;
  StopReason reason{};
  for (bool first = true;; first = false) {
    if (stop_before_running(request, reason, first)) return reason;
    if (needs_stepping(request)) {
      if (step_instruction()) return StopReason::kAttention;
      continue;
    }
    // Towards a breakpoint a block at a time: no branch goes on past a limit of zero.
    cpu_->branch_limit.store(request.has_breakpoint ? 0 : limit);
    if (kicked_.load()) continue;  // a kick between the check and the store must not be lost
    run_blocks();
    if (cpu_->exit == Exit::kNeedsStep) {
      if (step_instruction()) return StopReason::kAttention;
    } else {
      handle_exit();
      if (cpu_->bus.take_attention()) return StopReason::kAttention;
    }
  }
}

bool SoftVcpu::stop_before_running(const RunRequest& request, StopReason& reason, bool first) {
  Cpu& c = *cpu_;
  if (c.shutdown) return reason = StopReason::kShutdown, true;
  if (kicked_.exchange(false)) return reason = StopReason::kKicked, true;
  if (c.nmi_pending && !c.nmi_blocked && !c.interrupt_shadow) {
    c.nmi_pending = false;
    c.nmi_blocked = true;
    c.halted = false;
    deliver_external(c, kNmiVector);
    if (c.shutdown) return reason = StopReason::kShutdown, true;
    first = false;  // the handler's first instruction may have a breakpoint
  }
  // Before the interrupt window: the place may be meant as it is before an interrupt is taken
  // there.
  if (request.has_breakpoint && !first && !c.halted && c.rip == request.breakpoint)
    return reason = StopReason::kBreakpoint, true;
  if (request.stop_when_interruptible && interruptible())
    return reason = StopReason::kInterruptWindow, true;
  if (c.halted) return reason = StopReason::kHalted, true;
  if (c.branches >= request.alarm.value) return reason = StopReason::kAlarm, true;
  return false;
}

bool SoftVcpu::needs_stepping(const RunRequest& request) const {
  const Cpu& c = *cpu_;
  if (c.interrupt_shadow || debug_armed(c) || (c.rflags_other & flag::kRf) != 0) return true;
  if (!request.has_breakpoint) return false;
  // A block can run as a whole unless the breakpoint is within it, past its first instruction.
  const Block* block = c.mode.is64() ? quick_find(c, c.rip) : nullptr;
  return block == nullptr || request.breakpoint - c.rip - 1 < block->size - uint64_t{1};
}

// Runs from c.rip until a handler leaves. Fills in the link that led here, so that next time the
// way is direct.
void SoftVcpu::run_blocks() {
  Cpu& c = *cpu_;
  if (translator_ != nullptr && translator_->full()) c.code->clear();
  Block* block = c.code->find();
  if (block == nullptr) {
    c.link_slot = nullptr;
    return;  // c.exit is kFault
  }
  if (c.link_slot != nullptr && !block->crosses_page) *c.link_slot = block;
  c.link_slot = nullptr;
  c.regs[kRipBase] = c.rip;
  enter_guest_sse(c);
  const Op* op = block->ops;
  while (op != nullptr) op = op->fn(c, op);
  leave_guest_sse(c);
}

void SoftVcpu::handle_exit() {
  Cpu& c = *cpu_;
  if (c.exit != Exit::kFault) return;
  c.link_slot = nullptr;
  refine_address_fault(c);
  if (c.intercepts.faults) {
    c.intercepts.fault_held = true;
    c.exit = Exit::kContinue;
    return;
  }
  const Fault fault = c.fault;
  deliver(c, fault, c.rip);
}

bool SoftVcpu::step_instruction() {
  Cpu& c = *cpu_;
  if (debug_armed(c) && check_instruction_breakpoint(c))
    return c.intercepts.debug && c.bus.take_attention();
  c.rflags_other &= ~flag::kRf;
  const bool trap_after = (c.rflags_other & flag::kTf) != 0;
  c.interrupt_shadow = false;
  c.trap_hold = TrapHold::kNone;
  {
    const SteppingScope scope(c);
    c.link_slot = nullptr;
    run_blocks();
  }
  c.link_slot = nullptr;
  US_CHECK(c.exit != Exit::kNeedsStep, "an instruction at {:#x} cannot be stepped", c.rip);
  if (c.exit == Exit::kFault) {
    c.debug_hits = 0;
    handle_exit();
  } else {
    deliver_debug_traps(c, trap_after);
  }
  return c.bus.take_attention();
}

StopReason SoftVcpu::step() {
  StopReason reason{};
  const bool nmi_blocked = cpu_->nmi_blocked;
  if (stop_before_running({}, reason, true) && reason != StopReason::kKicked) return reason;
  if (cpu_->nmi_blocked != nmi_blocked) return StopReason::kStepped;  // its delivery is the step
  return step_instruction() ? StopReason::kAttention : StopReason::kStepped;
}

ExecutionPoint SoftVcpu::point() const {
  return {Branches(cpu_->branches), cpu_->rip, cpu_->regs[kRcx], Instructions(cpu_->instructions)};
}

bool SoftVcpu::interruptible() const {
  return (cpu_->rflags_other & flag::kIf) != 0 && !cpu_->interrupt_shadow && !cpu_->shutdown;
}

void SoftVcpu::inject_interrupt(uint8_t vector) {
  US_CHECK(interruptible(), "interrupt {} injected while the guest cannot take it", vector);
  cpu_->halted = false;
  deliver_external(*cpu_, vector);
}

void SoftVcpu::inject_nmi() { cpu_->nmi_pending = true; }

void SoftVcpu::kick() {
  kicked_.store(true);
  cpu_->branch_limit.store(0);
}

void SoftVcpu::kick_after(uint32_t blocks) { translator_->kick_after(blocks, kicked_); }

void SoftVcpu::refresh() {
  cpu_->link_slot = nullptr;  // the block it belongs to may not be what led to where RIP is now
  update_mode(*cpu_);
}

void SoftVcpu::drop_caches() {
  cpu_->code->clear();
  flush_tlb_all(*cpu_);
}

Registers SoftVcpu::registers() const {
  const Cpu& c = *cpu_;
  Registers r;
  for (unsigned i = 0; i < 16; ++i) r.gpr[i] = c.regs[i];
  r.rip = c.rip;
  r.rflags = rflags(c);
  r.cr0 = c.cr0, r.cr2 = c.cr2, r.cr3 = c.cr3, r.cr4 = c.cr4, r.efer = c.efer;
  r.cs = c.seg[kCs].selector, r.ss = c.seg[kSs].selector, r.ds = c.seg[kDs].selector;
  r.es = c.seg[kEs].selector, r.fs = c.seg[kFs].selector, r.gs = c.seg[kGs].selector;
  r.fs_base = c.seg[kFs].base, r.gs_base = c.seg[kGs].base;
  return r;
}

void SoftVcpu::set_registers(const Registers& r) {
  Cpu& c = *cpu_;
  const uint64_t before = linear_ip(c, c.rip);
  for (unsigned i = 0; i < 16; ++i) c.regs[i] = r.gpr[i];
  c.rip = r.rip;
  set_arithmetic_flags(c, r.rflags);
  c.rflags_other = (r.rflags & ~flag::kArithmetic) | flag::kOne;
  refresh();
  if (linear_ip(c, c.rip) != before) move_trace();
}

}  // namespace us::hv
