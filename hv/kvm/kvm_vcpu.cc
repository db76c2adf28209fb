// The run loop: into the guest, and out of it at a place that can be found again.
#include "hv/kvm/kvm_vcpu.h"

#include <cerrno>
#include <csignal>
#include <cstring>

#include "base/check.h"
#include "hv/cpu/system.h"
#include "hv/kvm/cpuid_table.h"

namespace us::hv::kvm {
namespace {

// To the vCPU's thread, which blocks both but in KVM_RUN. Not queued: one pending is enough.
constexpr int kKickSignal = SIGUSR2;
constexpr int kAlarmSignal = SIGSTKFLT;
constexpr int kSignals[] = {kKickSignal, kAlarmSignal};

UserError needs_time_exits() {
  return {.id = "KVM-004",
          .exit_code = ExitCode::kHostCannot,
          .what = "this kernel cannot keep a guest from reading the host's time stamp counter",
          .seen = "KVM modules without exits for RDTSC",
          .needed = "the patched modules, or a guest that does not read it",
          .mend =
              "build and load the modules of hv/kvm/patches (docs/hardware.md), or use the "
              "software processor (`--backend soft`)"};
}

UserError counter_failed(pmu::CounterError error) {
  return {.id = "KVM-008",
          .exit_code = ExitCode::kHostCannot,
          .what = "the guest's branch counter cannot be used any more",
          .seen = pmu::describe(error),
          .needed = "a counter that belongs to the vCPU all the time",
          .mend =
              "end who else holds the PMU (`perf`, the NMI watchdog); `understudy hostcheck` "
              "names them"};
}

UserError no_processor(unsigned cpu, int error) {
  return {.id = "KVM-011",
          .exit_code = ExitCode::kHostCannot,
          .what = fmt::format("the vCPU cannot run on processor {}", cpu),
          .seen = std::strerror(error),
          .needed = "a processor that is online and that this process may use",
          .mend = "name another with --cpu (`lscpu -e` lists them), or leave it out"};
}

void set_immediate_exit(kvm_run& page, uint8_t value) {
  __atomic_store_n(&page.immediate_exit, value, __ATOMIC_SEQ_CST);
}

}  // namespace

Result<std::unique_ptr<KvmVcpu>> KvmVcpu::create(KvmHost& host, GuestMemory& memory, Bus& bus,
                                                 KvmOptions options) {
  std::unique_ptr<KvmVcpu> vcpu(new KvmVcpu(memory, bus, std::move(options)));
  if (Status s = vcpu->open(host); !s.ok()) return s.error();
  return vcpu;
}

KvmVcpu::KvmVcpu(GuestMemory& memory, Bus& bus, KvmOptions options)
    : memory_(memory), bus_(bus), options_(std::move(options)), shadow_(memory, bus) {
  shadow_.stepping = true;  // what is done on it may touch devices
}

KvmVcpu::~KvmVcpu() = default;

Status KvmVcpu::open(KvmHost& host) {
  auto vm = Vm::create(host, memory_);
  if (!vm.ok()) return vm.error();
  vm_ = std::move(vm).value();
  // Who steps sees an RDTSC coming, and executes it himself.
  if (!features().time_exits && !options_.cooperative && options_.counter)
    return needs_time_exits();
  if (!options_.counter) {
    auto steps = std::make_unique<StepCounter>();
    steps_ = steps.get();
    counter_ = std::move(steps);
  }
  if (Status s = vm_->set_cpuid(cpuid_table(shadow_, !options_.cooperative)); !s.ok()) return s;
  fetch(kSregs);
  store(kAll);
  find_trace();
  return Done{};
}

VcpuCaps KvmVcpu::caps() const {
  return {.backend = "kvm",
          .counts_instructions = false,
          .exact_alarm = steps_ != nullptr,
          .traps_rdtsc = features().time_exits || steps_ != nullptr,
          .exact_step = features().monitor_steps && options_.use_monitor_steps,
          .traces_pt = trace_pmu_.has_value()};
}

// What belongs to the thread that runs the vCPU.
void KvmVcpu::bind() {
  KvmHost& host = vm_->host();
  const pid_t thread = host.this_thread();
  if (thread_.load() == thread) return;
  US_CHECK(thread_.load() == 0, "a vCPU changed its thread");
  host.block_signals(kSignals);
  const int r = host.unblock_in_run(vm_->vcpu(), kSignals);
  US_CHECK(r >= 0, "KVM_SET_SIGNAL_MASK: {}", std::strerror(-r));
  thread_ = thread;
  if (options_.cpu)
    if (const int pinned = host.pin_thread(*options_.cpu); pinned < 0)
      failure_ = no_processor(*options_.cpu, -pinned);
  if (counter_ != nullptr) return;
  auto made = options_.counter(kAlarmSignal);
  if (!made.ok()) {
    failure_ = made.error();
    return;
  }
  const Branches before = base_;
  counter_ = std::move(made).value();
  counted_ = false;
  set_branches(before);
}

Branches KvmVcpu::branches() const {
  if (counted_ || counter_ == nullptr) return counter_ == nullptr ? base_ : last_read_;
  const auto count = counter_->read();
  if (count.ok()) {
    last_read_ = base_ + (*count - origin_);
  } else if (!failure_) {
    failure_ = counter_failed(count.error());
  }
  counted_ = true;
  return last_read_;
}

void KvmVcpu::set_branches(Branches value) {
  base_ = value;
  last_read_ = value;
  if (counter_ == nullptr) return;
  const auto count = counter_->read();
  if (count.ok()) {
    origin_ = *count;
  } else if (!failure_) {
    failure_ = counter_failed(count.error());
  }
  counted_ = true;
}

void KvmVcpu::kick() {
  kicked_.store(true);
  set_immediate_exit(vm_->page(), 1);
  if (const pid_t thread = thread_.load(); thread != 0)
    vm_->host().send_signal(thread, kKickSignal);
}

StopReason KvmVcpu::fail(UserError error) {
  if (!failure_) failure_ = std::move(error);
  return StopReason::kFailed;
}

StopReason KvmVcpu::run(const RunRequest& request) {
  bind();
  sync_apic_base();
  resume_armed_ = false;
  for (bool first = true;; first = false) {
    if (const auto stop = stop_before_running(request, first)) return *stop;
    if (attention_) {
      attention_ = false;
      return StopReason::kAttention;
    }
    if (must_step()) {
      const StopReason reason = step_once();
      if (reason == StopReason::kFailed) return reason;
      attention_ = attention_ || reason == StopReason::kAttention;
      if (const auto stop = leave_shadow(request)) return *stop;
    } else if (const auto stop = enter(request)) {
      return *stop;
    }
  }
}

StopReason KvmVcpu::step() {
  bind();
  sync_apic_base();
  const bool nmi_before = nmi_pending_;
  const auto stop = stop_before_running({}, true);
  if (stop && *stop != StopReason::kKicked) return *stop;
  if (nmi_before && !nmi_pending_) return StopReason::kStepped;  // its delivery is the step
  return step_once();
}

// The order of the software processor (hv/cpu/soft_vcpu.cc), which recordings rely on.
std::optional<StopReason> KvmVcpu::stop_before_running(const RunRequest& request, bool first) {
  branches();  // a count that is lost ends every run, whatever else there is to say
  if (failure_) return StopReason::kFailed;
  if (shutdown_) return StopReason::kShutdown;
  if (kicked_.exchange(false)) return StopReason::kKicked;
  if (nmi_pending_) {
    fetch(kEvents);
    if (!shadow_.nmi_blocked && !shadow_.interrupt_shadow) {
      nmi_pending_ = false;
      deliver([](Cpu& c) { deliver_external(c, kNmiVector); });
      if (shutdown_) return StopReason::kShutdown;
      first = false;
    }
  }
  if (request.has_breakpoint && !first && !halted_ && executed_past_breakpoint(request))
    return StopReason::kBreakpoint;
  if (request.stop_when_interruptible && interruptible()) return StopReason::kInterruptWindow;
  if (halted_) return StopReason::kHalted;
  if (branches() >= request.alarm) return StopReason::kAlarm;
  return std::nullopt;
}

// At the breakpoint, and not because the instruction there has not been executed yet: RF, which
// keeps the breakpoint off, is still set then.
bool KvmVcpu::executed_past_breakpoint(const RunRequest& request) {
  fetch(kRegs);
  if (shadow_.rip != request.breakpoint) return false;
  return !(resume_armed_ && resume_flag_);
}

// The kernel tells nobody when an NMI's handler has returned, so it is waited for by steps.
bool KvmVcpu::must_step() const { return steps_ != nullptr || nmi_pending_; }

// Sets the alarm. False: the counter failed.
bool KvmVcpu::arm(Branches alarm) {
  if (armed_for_ == alarm) return true;
  if (alarm.value == ~uint64_t{0}) {
    counter_->disarm();
    armed_for_ = alarm;
    return true;
  }
  const Branches now = branches();
  if (failure_) return false;
  // Nearer than the counter takes, it comes late: who asked for it knows that alarms do.
  const Branches target = std::max(alarm, now + counter_->period_min());
  const auto armed = counter_->arm(origin_ + (now - base_), origin_ + (target - base_));
  if (!armed.ok()) {
    fail(counter_failed(armed.error()));
    return false;
  }
  armed_for_ = alarm;
  return true;
}

void KvmVcpu::prepare_breakpoint(const RunRequest& request) {
  if (!request.has_breakpoint) {
    if (debug_control_ != 0) set_debug(0, nullptr, 0);
    return;
  }
  fetch(kRegs | kSregs);
  const uint64_t linear = shadow_.mode.is64()
                              ? request.breakpoint
                              : static_cast<uint32_t>(shadow_.seg[kCs].base + request.breakpoint);
  if (debug_control_ != (KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP) ||
      debug_breakpoint_ != linear)
    set_debug(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, nullptr, linear);
  if (shadow_.rip != request.breakpoint) return;
  kvm_regs regs = to_regs(shadow_);
  regs.rflags |= flag::kRf;
  const int r = vm_->host().set_regs(vm_->vcpu(), regs);
  US_CHECK(r >= 0, "KVM_SET_REGS: {}", std::strerror(-r));
  resume_armed_ = true;
}

// Breakpoints: the plan's landings, or else one. DR7: local enable and exact, execution, one byte.
void KvmVcpu::set_debug(uint32_t control, const StepPlan* plan, uint64_t breakpoint) {
  constexpr uint64_t kFixed = 1u << 10;
  kvm_guest_debug debug{};
  debug.control = control;
  uint64_t enabled = kFixed;
  const auto use = [&](unsigned i, uint64_t address) {
    debug.arch.debugreg[i] = address;
    enabled |= uint64_t{1} << (2 * i);
  };
  if (plan != nullptr) {
    for (unsigned i = 0; i < plan->landing_count; ++i) use(i, plan->landings[i].address);
  } else if ((control & KVM_GUESTDBG_USE_HW_BP) != 0) {
    use(0, breakpoint);
  }
  debug.arch.debugreg[7] = enabled;
  const int r = vm_->host().set_guest_debug(vm_->vcpu(), debug);
  US_CHECK(r >= 0, "KVM_SET_GUEST_DEBUG: {}", std::strerror(-r));
  debug_control_ = control;
  debug_breakpoint_ = plan != nullptr ? ~uint64_t{0} : breakpoint;
}

// One KVM_RUN. Nothing seen before it holds afterwards.
int KvmVcpu::enter_kernel(bool complete_only) {
  kvm_run& page = vm_->page();
  page.cr8 = bus_.task_priority();
  set_immediate_exit(page, complete_only ? 1 : 0);
  // A kick before this store must not be lost; one after it is seen by the kernel.
  if (!complete_only && kicked_.load()) set_immediate_exit(page, 1);
  fresh_ = 0;
  counted_ = false;
  access_pending_ = false;
  debug_exit_ = false;
  if (capture_ != nullptr) capture_->pump();
  const int result = vm_->host().run(vm_->vcpu());
  ++statistics_.runs;
  if (result == -EINTR) ++statistics_.interrupted;
  if (result >= 0) debug_exit_ = page.exit_reason == KVM_EXIT_DEBUG;
  if (page.cr8 != bus_.task_priority()) bus_.set_task_priority(static_cast<uint8_t>(page.cr8));
  return result;
}

void KvmVcpu::took_signals() {
  KvmHost& host = vm_->host();
  host.take_signal(kKickSignal);
  if (!host.take_signal(kAlarmSignal)) return;
  counter_->on_interrupt();
  armed_for_.reset();
}

// An access is over when the kernel has been entered once more; it may have another part.
void KvmVcpu::complete() {
  while (access_pending_) {
    const int result = enter_kernel(true);
    if (result == -EINTR) {
      took_signals();
      break;
    }
    if (result < 0) {
      fail(internal_error());
      break;
    }
    if (!serve()) report_exit();
  }
  if (bus_.take_attention()) attention_ = true;
}

void KvmVcpu::settle() {
  complete();
  if (shutdown_ || failure_) return;
  fetch(kEvents);
  if (event_in_flight()) finish_events();
}

// Debug exceptions, and with them breakpoints, do not happen in the shadow of MOV SS, nor where an
// IRET came back to with RF set, and stepping ends any shadow: such a place cannot be landed on. An
// interrupt that waits is delivered there all the same, as it is on every other run; but nothing
// else is looked at before that, or an input would be given such a place.
std::optional<StopReason> KvmVcpu::leave_shadow(const RunRequest& request) {
  while (!shutdown_ && !failure_ && !halted_) {
    fetch(kEvents | kRegs);
    const bool armed = resume_armed_ && shadow_.rip == request.breakpoint;  // RF is ours
    const bool resuming = resume_flag_ && !armed;
    if (!shadow_.interrupt_shadow && !resuming && !step_holds_) break;
    if (request.stop_when_interruptible && interruptible()) return StopReason::kInterruptWindow;
    ++statistics_.left_shadows;
    if (step_once() == StopReason::kAttention) attention_ = true;
  }
  if (!attention_) return std::nullopt;
  attention_ = false;
  return StopReason::kAttention;
}

std::optional<StopReason> KvmVcpu::enter(const RunRequest& request) {
  prepare_breakpoint(request);
  step_holds_ = false;
  if (!arm(request.alarm)) return StopReason::kFailed;
  kvm_run& page = vm_->page();
  for (;;) {
    page.request_interrupt_window = request.stop_when_interruptible;
    const int result = enter_kernel(false);
    if (result == -EINTR) {
      took_signals();
      break;
    }
    if (result == -EAGAIN) continue;
    if (result < 0) return fail(internal_error());
    if (!serve()) {
      report_exit();
      break;
    }
    // Served; it is completed on the way back into the guest, unless somebody is to be asked first.
    const bool wanted = bus_.take_attention();
    attention_ = attention_ || wanted;
    if (attention_ || kicked_.load() || branches() >= request.alarm || failure_) break;
  }
  settle();
  if (failure_) return StopReason::kFailed;
  return leave_shadow(request);
}

bool KvmVcpu::interruptible() const {
  if (shutdown_) return false;
  fetch(kRegs | kEvents);
  return (shadow_.rflags_other & flag::kIf) != 0 && !shadow_.interrupt_shadow && !step_holds_;
}

void KvmVcpu::inject_interrupt(uint8_t vector) {
  US_CHECK(interruptible(), "interrupt {} injected while the guest cannot take it", vector);
  deliver([vector](Cpu& c) { deliver_external(c, vector); });
}

std::string KvmVcpu::remarks() const {
  if (vm_->pin_error() == 0) return {};
  return fmt::format("the guest's memory is not pinned: {} (raise the limit of locked memory)",
                     std::strerror(vm_->pin_error()));
}

}  // namespace us::hv::kvm
