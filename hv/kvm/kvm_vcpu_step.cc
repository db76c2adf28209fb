// One instruction, or the delivery of the fault it raises.
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "hv/cpu/system.h"
#include "hv/kvm/kvm_vcpu.h"
#include "hv/kvm/patch_abi.h"

namespace us::hv::kvm {
namespace {

// Exceptions that push an error code. SDM 3A table 6-1.
bool pushes_error(int vector) {
  return vector == kDoubleFault || (vector >= kInvalidTss && vector <= kPageFault) ||
         vector == kAlignmentCheck;
}

}  // namespace

StopReason KvmVcpu::step_once() {
  ++statistics_.steps;
  fetch(kCore);
  const uint64_t from = shadow_.rip;
  const bool was_open = (shadow_.rflags_other & flag::kIf) != 0;
  const bool monitor = features().monitor_steps && options_.use_monitor_steps;
  StepPlan plan;
  if (!monitor || steps_ != nullptr) {
    if (decode_at(shadow_, from).needs_rest) fetch(kRest);
    plan = plan_step(shadow_);
  }
  if (plan.reads_time && !features().time_exits && steps_ != nullptr) {
    if (emulate_time(plan)) return StopReason::kStepped;
  }
  const bool by_debug = step_kernel(plan);
  if (failure_) return StopReason::kFailed;
  if (!shutdown_) finish_step(plan, from, by_debug);
  step_holds_ = holds(plan, from, was_open);
  const bool wanted = bus_.take_attention();
  if (!wanted && !attention_) return StopReason::kStepped;
  attention_ = false;
  return StopReason::kAttention;
}

// RDTSC where the kernel cannot make it exit: seen before it is executed. False: it would fault.
bool KvmVcpu::emulate_time(const StepPlan& plan) {
  if ((shadow_.cr4 & cr4::kTsd) != 0 && shadow_.cpl != 0) return false;
  const uint64_t now = bus_.tsc(branches()).value;
  shadow_.regs[kRax] = static_cast<uint32_t>(now);
  shadow_.regs[kRdx] = now >> 32;
  if (plan.reads_time_aux) {
    fetch(kRest);
    shadow_.regs[kRcx] = static_cast<uint32_t>(shadow_.msr.tsc_aux);
  }
  shadow_.rip += plan.length;
  shadow_.interrupt_shadow = false;
  store(kRegs | kEvents);
  return true;
}

// Runs the kernel until the step is over. True: the kernel said so by a debug exit.
bool KvmVcpu::step_kernel(const StepPlan& plan) {
  const bool monitor = features().monitor_steps && options_.use_monitor_steps;
  const uint32_t control =
      monitor ? KVM_GUESTDBG_ENABLE | US_KVM_GUESTDBG_MTF
              : KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP;
  kvm_run& page = vm_->page();
  page.request_interrupt_window = 0;
  for (;;) {
    // Every time: KVM arms TF only for the address at which it was told to.
    set_debug(control, &plan, 0);
    const bool kicked = kicked_.exchange(false);  // waits until the step is over
    const int result = enter_kernel(false);
    if (kicked) kicked_.store(true);
    if (result == -EAGAIN) continue;
    if (result == -EINTR) {
      took_signals();
      fetch(kEvents);
      if (!event_in_flight()) continue;
      finish_events();  // the fault that the instruction raised
      return false;
    }
    if (result < 0) {
      fail(internal_error());
      return false;
    }
    if (serve()) {
      settle();  // the instruction is complete, or the fault that came of it delivered
      return debug_exit_;
    }
    report_exit();
    return debug_exit_;
  }
}

void KvmVcpu::finish_step(const StepPlan& plan, uint64_t from, bool ended_by_debug) {
  const auto& arch = vm_->page().debug.arch;
  const bool monitored = ended_by_debug && arch.exception == US_KVM_DEBUG_EXCEPTION_MTF;
  const bool trapped = ended_by_debug && (monitored || (arch.dr6 & dr6::kBs) != 0);
  if (steps_ != nullptr) count_branches(plan, from, trapped);
  // KVM has this exit say HLT; one that emulates every instruction was seen to say only "stepped".
  if (plan.halts && trapped) halted_ = true;
  if (monitored || (debug_control_ & KVM_GUESTDBG_SINGLESTEP) == 0) return;
  fetch(kRegs | kSregs);
  // A fault that came of a served access ends the step without a debug exit.
  if (!trapped) {
    const uint64_t here = shadow_.mode.is64()
                              ? shadow_.rip
                              : static_cast<uint32_t>(shadow_.seg[kCs].base + shadow_.rip);
    for (unsigned i = 0; i < plan.landing_count; ++i)
      if (plan.landings[i].address == here && plan.landings[i].vector != StepPlan::kNoVector)
        clean_frame(plan.landings[i]);
  }
  if (plan.enters_system && shadow_.rip != from && (shadow_.regs[kR11] & flag::kTf) != 0) {
    shadow_.regs[kR11] &= ~flag::kTf;
    store(kRegs);
  }
  if (plan.stores_flags && trapped) {
    const uint64_t stack = shadow_.mode.is64()
                               ? shadow_.regs[kRsp]
                               : static_cast<uint32_t>(shadow_.seg[kSs].base + shadow_.regs[kRsp]);
    clean_flags_at(stack, plan.flags_bytes);
  }
}

bool KvmVcpu::holds(const StepPlan& plan, uint64_t from, bool was_open) const {
  if (shutdown_ || failure_ || (!plan.repeats && !plan.opens_window)) return false;
  fetch(kRegs);
  if (plan.repeats) return shadow_.rip == from;
  const bool open = (shadow_.rflags_other & flag::kIf) != 0;
  return !was_open && open && shadow_.rip == from + plan.length;
}

// Only what went on past the instruction was executed: a fault leads elsewhere, and then the step
// ends by a breakpoint, or (monitored) at an address that the instruction does not lead to.
void KvmVcpu::count_branches(const StepPlan& plan, uint64_t from, bool trapped) {
  if (!trapped) return;
  uint64_t branches = 0;
  fetch(kRegs);
  if (plan.conditional_branch)
    branches = shadow_.rip == from + plan.length || shadow_.rip == plan.target ? 1 : 0;
  if (plan.holds_trap && shadow_.rip != from + plan.length) {
    fetch(kSregs);
    branches += decode_at(shadow_, from + plan.length).conditional_branch ? 1 : 0;
  }
  steps_->retire(branches);
  counted_ = false;
}

// The flags in the frame of an exception or software interrupt that has just been delivered.
void KvmVcpu::clean_frame(const StepPlan::Landing& landing) {
  const unsigned word = (shadow_.efer & efer::kLma) != 0 ? 8 : 4;
  const uint64_t stack = word == 8
                             ? shadow_.regs[kRsp]
                             : static_cast<uint32_t>(shadow_.seg[kSs].base + shadow_.regs[kRsp]);
  clean_flags_at(stack + word * (pushes_error(landing.vector) ? 3u : 2u), word);
}

void KvmVcpu::clean_flags_at(uint64_t linear, unsigned bytes) {
  uint8_t image[8] = {};
  US_CHECK(bytes <= sizeof image, "flags of {} bytes", bytes);
  for (unsigned i = 0; i < bytes; ++i) {
    uint64_t phys;
    if (!translate_quietly(shadow_, linear + i, phys)) return;
    memory_.read(GuestPhys(phys), {image + i, 1});
    if (i != 1) continue;  // TF is in the second byte
    const auto clean = static_cast<uint8_t>(image[1] & ~(flag::kTf >> 8));
    memory_.write(GuestPhys(phys), {&clean, 1});
    return;
  }
}

}  // namespace us::hv::kvm
