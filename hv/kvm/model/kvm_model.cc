// Running: what happens between KVM_RUN and its return.
#include "hv/kvm/model/kvm_model.h"

#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "hv/cpu/code_cache.h"
#include "hv/cpu/system.h"
#include "hv/kvm/patch_abi.h"

namespace us::hv::kvm::model {
namespace {

constexpr uint32_t kX2apicFirst = 0x800, kX2apicLast = 0x8ff, kApicBase = 0x1b;

uint64_t bit_of(int signal) { return uint64_t{1} << (signal - 1); }

}  // namespace

KvmModel::KvmModel(const KvmModelOptions& options, PerfModel* perf, TraceModel* trace)
    : options_(options), perf_(perf), trace_(trace), random_(options.seed) {}

KvmModel::~KvmModel() = default;

// --- Signals

void KvmModel::block_signals(std::span<const int> signals) {
  blocked_.insert(signals.begin(), signals.end());
}

bool KvmModel::take_signal(int signal) {
  return (pending_signals_.fetch_and(~bit_of(signal)) & bit_of(signal)) != 0;
}

// From any thread.
void KvmModel::send_signal(pid_t, int signal) {
  pending_signals_.fetch_or(bit_of(signal));
  if (soft_ != nullptr) soft_->kick();
}

bool KvmModel::signal_pending() const {
  const uint64_t pending = pending_signals_.load();
  for (const int signal : unblocked_in_run_)
    if ((pending & bit_of(signal)) != 0) return true;
  return false;
}

// --- KVM_RUN

int KvmModel::run(int) {
  ++runs;
  US_CHECK(soft_ != nullptr, "KVM_RUN without memory or a vCPU");
  if (vmm_memory_ != nullptr) {
    vmm_memory_->set_code_watcher(c().code.get());
    for (uint64_t i = 0; i < vmm_memory_->page_count(); ++i)
      vmm_memory_->page_flags()[i] |= GuestMemory::kPageHasCode;
    vmm_memory_ = nullptr;
  }
  for (const int signal : unblocked_in_run_)
    if (blocked_.count(signal) == 0) note("a signal of KVM_RUN's is not blocked outside");
  cr8_ = static_cast<uint8_t>(page().cr8);
  if (access_open_) {
    // First the access is completed, then immediate_exit is looked at.
    fiber_->resume();
  } else {
    const bool at_once = options_.interrupt_entry_one_in != 0 &&
                         random_.next() % options_.interrupt_entry_one_in == 0;
    if (page().immediate_exit != 0 || signal_pending() || at_once) {
      stop_ = interrupted();
    } else {
      begin_entry();
      fiber_->resume();
    }
  }
  leave_guest();
  remove_debug();
  page().exit_reason = stop_.reason;
  page().cr8 = cr8_;
  page().apic_base = apic_base_;
  page().if_flag = (c().rflags_other & flag::kIf) != 0;
  page().ready_for_interrupt_injection = !access_open_ && soft_->interruptible();
  return stop_.result;
}

void KvmModel::guest() {
  for (;;) {
    stop_ = run_guest();
    fiber_->pause();
    access_done_ = false;
  }
}

// The processor changes over; only a trace sees when.
void KvmModel::enter_guest() {
  if (trace_ != nullptr) trace_->enter(c());
}

void KvmModel::leave_guest() {
  if (trace_ != nullptr) trace_->leave(c());
}

KvmModel::Stop KvmModel::interrupted() {
  ++interruptions;
  return {-EINTR, KVM_EXIT_INTR};
}

// Where a signal that means nothing will arrive, drawn anew for every entry.
void KvmModel::begin_entry() {
  interrupt_branches_.reset();
  interrupt_steps_.reset();
  if (options_.interrupt_after_branches != 0)
    interrupt_branches_ =
        c().branches + 1 + random_.next() % (2 * options_.interrupt_after_branches);
  if (options_.interrupt_after_steps != 0)
    interrupt_steps_ = random_.next() % (2 * options_.interrupt_after_steps);
}

KvmModel::Stop KvmModel::run_guest() {
  for (;;) {
    if (failure_ && c().branches >= failure_->first) {
      page().internal.suberror = failure_->second;
      page().internal.ndata = 0;
      failure_.reset();
      return {0, KVM_EXIT_INTERNAL_ERROR};
    }
    if (const auto stop = at_boundary()) return *stop;
    install_debug();
    const Stop stop = run_stretch();
    if (stop.reason != KVM_EXIT_UNKNOWN || stop.result != 0) return stop;
  }
}

// What the guest is stopped for before its next instruction.
std::optional<KvmModel::Stop> KvmModel::at_boundary() {
  Cpu& cpu = c();
  if (cpu.shutdown) {
    cpu.shutdown = false;
    return Stop{0, KVM_EXIT_SHUTDOWN};
  }
  if (cpu.halted) {
    cpu.halted = false;  // nobody but the caller remembers
    return Stop{0, KVM_EXIT_HLT};
  }
  if (signal_pending()) return interrupted();
  if (access_done_ && page().immediate_exit != 0) return interrupted();
  access_done_ = false;
  if (cpu.intercepts.fault_held) {
    deliver_held();
    if (monitor_steps_ && (debug_.control & US_KVM_GUESTDBG_MTF) != 0) return monitor_step();
  }
  if (page().request_interrupt_window != 0 && soft_->interruptible())
    return Stop{0, KVM_EXIT_IRQ_WINDOW_OPEN};
  if (interrupt_steps_ && *interrupt_steps_ == 0) {
    interrupt_steps_.reset();
    return interrupted();
  }
  if (interrupt_branches_ && cpu.branches >= *interrupt_branches_) {
    interrupt_branches_.reset();
    return interrupted();
  }
  return std::nullopt;
}

// Executes until something may have to be done. Reason "unknown": nothing was.
KvmModel::Stop KvmModel::run_stretch() {
  Cpu& cpu = c();
  const bool monitor = (debug_.control & US_KVM_GUESTDBG_MTF) != 0;
  cpu.intercepts.faults = options_.interrupt_delivery_one_in != 0 || monitor;
  StopReason reason;
  enter_guest();
  if (monitor || interrupt_steps_) {
    if (interrupt_steps_) --*interrupt_steps_;
    reason = soft_->step();
  } else {
    RunRequest request{.stop_when_interruptible = page().request_interrupt_window != 0};
    if (interrupt_branches_) request.alarm = Branches(*interrupt_branches_);
    if (perf_ != nullptr)
      if (const auto at = perf_->interrupt_at())
        request.alarm = std::min(request.alarm, Branches(*at));
    if (failure_) request.alarm = std::min(request.alarm, Branches(failure_->first));
    reason = soft_->run(request);
  }
  reclaim_debug();
  if (perf_ != nullptr && perf_->interrupt_at() && *perf_->interrupt_at() <= cpu.branches)
    perf_->interrupt();
  if (const auto stop = debug_stop()) return *stop;
  if (cpu.intercepts.fault_held) {
    if (options_.interrupt_delivery_one_in != 0 &&
        random_.next() % options_.interrupt_delivery_one_in == 0) {
      ++held_deliveries;
      return interrupted();
    }
    deliver_held();
  }
  if (monitor && reason != StopReason::kHalted && !cpu.halted && !cpu.shutdown) {
    return monitor_step();
  }
  return {0, KVM_EXIT_UNKNOWN};
}

KvmModel::Stop KvmModel::monitor_step() {
  auto& arch = page().debug.arch;
  arch = {};
  arch.exception = US_KVM_DEBUG_EXCEPTION_MTF;
  arch.pc = linear_rip();
  return {0, KVM_EXIT_DEBUG};
}

std::optional<KvmModel::Stop> KvmModel::debug_stop() {
  Intercepts& seen = c().intercepts;
  if (priority_exit_) {  // takes the place of a step's end
    priority_exit_ = false;
    seen.debug_hits = 0;
    return Stop{0, KVM_EXIT_SET_TPR};
  }
  if (seen.debug_hits == 0) return std::nullopt;
  if (c().halted) {
    c().halted = false;
    if (options_.halt_ends_step) {
      seen.debug_hits = 0;
      return Stop{0, KVM_EXIT_HLT};
    }
  }
  if (!options_.step_shows_holds) {
    c().rflags_other &= ~flag::kRf;
    c().interrupt_shadow = false;
  }
  auto& arch = page().debug.arch;
  arch = {};
  arch.exception = kDebug;
  arch.pc = linear_rip();
  arch.dr6 = 0xffff'0ff0 | seen.debug_hits;
  arch.dr7 = debug_.arch.debugreg[7];
  seen.debug_hits = 0;
  return Stop{0, KVM_EXIT_DEBUG};
}

void KvmModel::deliver_held() {
  Cpu& cpu = c();
  cpu.intercepts.fault_held = false;
  enter_guest();  // it is delivered on the way in
  const Fault fault = cpu.fault;
  deliver(cpu, fault, cpu.rip);
}

uint64_t KvmModel::linear_rip() {
  return c().mode.is64() ? c().rip : static_cast<uint32_t>(c().seg[kCs].base + c().rip);
}

// --- Guest debugging

void KvmModel::install_debug() {
  Cpu& cpu = c();
  const uint32_t control = debug_.control;
  cpu.intercepts.debug = (control & (KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP)) != 0;
  if ((control & KVM_GUESTDBG_SINGLESTEP) != 0) cpu.interrupt_shadow = false;
  if ((control & KVM_GUESTDBG_USE_HW_BP) == 0 || debug_installed_) return;
  debug_installed_ = true;
  for (unsigned i = 0; i < 4; ++i) {
    guest_dr_[i] = cpu.dr[i];
    cpu.dr[i] = debug_.arch.debugreg[i];
  }
  guest_dr7_ = cpu.dr7;
  cpu.dr7 = debug_.arch.debugreg[7];
}

void KvmModel::remove_debug() {
  Cpu& cpu = c();
  if (!debug_installed_ || access_open_) return;
  debug_installed_ = false;
  reclaim_debug();
  for (unsigned i = 0; i < 4; ++i) cpu.dr[i] = guest_dr_[i];
  cpu.dr7 = guest_dr7_;
}

// What the guest wrote to debug registers while the debugger's are in them.
bool KvmModel::guest_wrote_debug() const {
  const Cpu& cpu = soft_->cpu();
  if (!debug_installed_) return false;
  bool wrote = cpu.dr7 != debug_.arch.debugreg[7];
  for (unsigned i = 0; i < 4; ++i) wrote = wrote || cpu.dr[i] != debug_.arch.debugreg[i];
  return wrote;
}

// KVM catches such writes and keeps them for the guest; breakpoints stay armed. kvm_set_dr() in
// Linux's arch/x86/kvm/x86.c
void KvmModel::reclaim_debug() {
  if (!guest_wrote_debug()) return;
  Cpu& cpu = c();
  for (unsigned i = 0; i < 4; ++i) {
    if (cpu.dr[i] == debug_.arch.debugreg[i]) continue;
    guest_dr_[i] = cpu.dr[i];
    cpu.dr[i] = debug_.arch.debugreg[i];
  }
  if (cpu.dr7 == debug_.arch.debugreg[7]) return;
  guest_dr7_ = cpu.dr7;
  cpu.dr7 = debug_.arch.debugreg[7];
}

// TF is put into the guest's flags now, if they are to be stepped from here.
int KvmModel::set_guest_debug(int, const kvm_guest_debug& in) {
  touch("KVM_SET_GUEST_DEBUG");
  uint32_t known = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP;
  if (monitor_steps_) known |= US_KVM_GUESTDBG_MTF;
  if ((in.control & ~known) != 0) return -EINVAL;
  if ((in.control & US_KVM_GUESTDBG_MTF) != 0 && (in.control & KVM_GUESTDBG_SINGLESTEP) != 0)
    return -EINVAL;
  Cpu& cpu = c();
  if ((debug_.control & KVM_GUESTDBG_SINGLESTEP) != 0) cpu.rflags_other &= ~flag::kTf;
  debug_ = in;
  if ((in.control & KVM_GUESTDBG_SINGLESTEP) != 0) {
    step_rip_ = linear_rip();
    cpu.rflags_other |= flag::kTf;
  }
  cpu.intercepts.debug_hits = 0;
  return 0;
}

// --- Accesses

// Leaves the guest in the middle of its instruction. Back here, the answer is in the run page.
void KvmModel::wait_for(uint32_t reason) {
  ++accesses;
  stop_ = {0, reason};
  access_open_ = true;
  leave_guest();
  fiber_->pause();
  access_open_ = false;
  access_done_ = true;
}

void KvmModel::port(bool in, uint16_t port, unsigned size) {
  auto& io = page().io;
  io.direction = in ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT;
  io.size = static_cast<uint8_t>(size);
  io.port = port;
  io.count = 1;
  io.data_offset = kDataOffset;
  wait_for(KVM_EXIT_IO);
}

uint32_t KvmModel::pio_read(uint16_t number, unsigned size) {
  port(true, number, size);
  uint32_t value = 0;
  std::memcpy(&value, page_ + kDataOffset, size);
  return value;
}

void KvmModel::pio_write(uint16_t number, unsigned size, uint32_t value) {
  std::memcpy(page_ + kDataOffset, &value, size);
  port(false, number, size);
}

uint64_t KvmModel::mmio_read(GuestPhys address, unsigned size) {
  auto& mmio = page().mmio;
  mmio = {};
  mmio.phys_addr = address.value;
  mmio.len = size;
  wait_for(KVM_EXIT_MMIO);
  uint64_t value = 0;
  std::memcpy(&value, mmio.data, size);
  return value;
}

void KvmModel::mmio_write(GuestPhys address, unsigned size, uint64_t value) {
  auto& mmio = page().mmio;
  mmio = {};
  mmio.phys_addr = address.value;
  mmio.len = size;
  mmio.is_write = 1;
  std::memcpy(mmio.data, &value, size);
  wait_for(KVM_EXIT_MMIO);
}

// CPUID asks the bus for the APIC base too; KVM answers that by itself.
bool KvmModel::guest_reads_msr() {
  uint8_t bytes[2] = {};
  for (unsigned i = 0; i < 2; ++i) {
    uint64_t phys;
    if (!translate_quietly(c(), linear_rip() + i, phys)) return false;
    memory_->read(GuestPhys(phys), {bytes + i, 1});
  }
  return c().stepping && bytes[0] == 0x0f && bytes[1] == 0x32;
}

bool KvmModel::ask_msr(bool write, uint32_t index, uint64_t& value) {
  auto& msr = page().msr;
  msr = {};
  msr.index = index;
  msr.data = value;
  msr.reason = index >= kX2apicFirst && index <= kX2apicLast ? KVM_MSR_EXIT_REASON_INVAL
                                                             : KVM_MSR_EXIT_REASON_FILTER;
  wait_for(write ? KVM_EXIT_X86_WRMSR : KVM_EXIT_X86_RDMSR);
  value = msr.data;
  return msr.error == 0;
}

// Allowed by the filter: the processor's own. The x2APIC's are not subject to it, and with the APIC
// in userspace KVM knows none of them.
bool allowed(const kvm_msr_filter& filter, uint32_t index) {
  if (index >= kX2apicFirst && index <= kX2apicLast) return false;
  for (const kvm_msr_filter_range& range : filter.ranges) {
    if (range.nmsrs == 0 || index < range.base || index - range.base >= range.nmsrs) continue;
    const uint32_t at = index - range.base;
    return (range.bitmap[at / 8] >> (at % 8) & 1) != 0;
  }
  return (filter.flags & KVM_MSR_FILTER_DEFAULT_DENY) == 0;
}

bool KvmModel::msr_read(uint32_t index, uint64_t& value) {
  if (index == kApicBase && !guest_reads_msr()) {
    value = apic_base_;
    return true;
  }
  value = 0;
  if (!allowed(filter_, index)) return user_msrs_ && ask_msr(false, index, value);
  return read_msr(c(), index, value);
}

bool KvmModel::msr_write(uint32_t index, uint64_t value) {
  if (!allowed(filter_, index)) return user_msrs_ && ask_msr(true, index, value);
  return write_msr(c(), index, value);
}

void KvmModel::set_task_priority(uint8_t priority) {
  priority_exit_ = priority < cr8_;
  cr8_ = priority;
}

GuestTsc KvmModel::tsc(Branches) {
  if (!time_exits_) {
    wall_ += 1 + random_.next() % 1000;
    return GuestTsc(wall_);
  }
  auto& tsc = *reinterpret_cast<us_kvm_run_tsc*>(page_ + US_KVM_RUN_UNION_OFFSET);
  tsc = {};
  wait_for(US_KVM_EXIT_X86_TSC);
  return GuestTsc(tsc.value);
}

bool KvmModel::take_attention() {
  const Intercepts& seen = c().intercepts;
  return access_done_ || priority_exit_ || seen.debug_hits != 0 || seen.fault_held ||
         guest_wrote_debug();
}

}  // namespace us::hv::kvm::model
