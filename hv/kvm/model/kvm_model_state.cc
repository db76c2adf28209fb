// Everything but running: setting a VM up, and its state from outside.
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "hv/core/no_bus.h"
#include "hv/cpu/system.h"
#include "hv/kvm/model/kvm_model.h"
#include "hv/kvm/patch_abi.h"

namespace us::hv::kvm::model {
namespace {

enum File : int { kDevice = 10, kVm = 11, kVcpu = 12 };

}  // namespace

// State that is read while an access is open is not wrong for KVM, but it is the state before the
// instruction: our code must never do it.
void KvmModel::touch(const char* call) {
  if (access_open_) note(std::string(call) + " while an access was not completed");
}

int KvmModel::open_device() {
  if (options_.open_error != 0) return -options_.open_error;
  ++open_files_;
  return kDevice;
}

void KvmModel::close(int fd) {
  --open_files_;
  if (fd == kVm) vm_open_ = false;
}

int KvmModel::check_extension(int, uint32_t cap) {
  if (options_.absent.count(cap) != 0) return 0;
  switch (cap) {
    case US_KVM_CAP_X86_TSC_EXIT: return options_.time_exits ? US_KVM_TSC_EXIT_RDTSC : 0;
    case US_KVM_CAP_X86_MTF_STEP: return options_.monitor_steps;
    case US_KVM_CAP_X86_HIDE_SPURIOUS_PF: return options_.hides_spurious_faults;
    case US_KVM_CAP_X86_PT_GUEST_ONLY: return options_.guest_only_trace;
    default: return 1;
  }
}

int KvmModel::create_vm(int) {
  if (options_.create_vm_error != 0) return -options_.create_vm_error;
  US_CHECK(!vm_open_, "the model has one VM at a time");
  vm_open_ = true;
  ++open_files_;
  return kVm;
}

int KvmModel::supported_cpuid(int, std::span<kvm_cpuid_entry2> entries) {
  // A processor that has what our guests are told, and more.
  NoBus bus;
  auto memory = GuestMemory::create(1u << 20);
  US_CHECK(memory.ok());
  const Cpu cpu(**memory, bus);
  std::vector<kvm_cpuid_entry2> table = cpuid_table(cpu, true);
  for (kvm_cpuid_entry2& e : table) {
    if (e.function != 1) continue;
    constexpr uint32_t kAvx = 1u << 28, kFma = 1u << 12;
    e.ecx = (e.ecx | kAvx | kFma) & ~options_.missing_features_ecx;
  }
  if (entries.size() < table.size()) return -E2BIG;
  std::copy(table.begin(), table.end(), entries.begin());
  return static_cast<int>(table.size());
}

int KvmModel::enable_capability(int, uint32_t cap, uint64_t argument) {
  if (check_extension(kVm, cap) == 0) return -EINVAL;
  switch (cap) {
    case KVM_CAP_X86_USER_SPACE_MSR: user_msrs_ = argument != 0; return 0;
    case US_KVM_CAP_X86_TSC_EXIT:
      if (argument != US_KVM_TSC_EXIT_RDTSC || soft_ != nullptr) return -EINVAL;
      time_exits_ = true;
      return 0;
    case US_KVM_CAP_X86_MTF_STEP:
      if (argument != 0 || soft_ != nullptr) return -EINVAL;
      monitor_steps_ = true;
      return 0;
    case US_KVM_CAP_X86_HIDE_SPURIOUS_PF:
    case US_KVM_CAP_X86_PT_GUEST_ONLY:
    case KVM_CAP_PMU_CAPABILITY: return soft_ != nullptr ? -EINVAL : 0;
    default: return -EINVAL;
  }
}

int KvmModel::set_memory(int, const kvm_userspace_memory_region& region) {
  if (region.userspace_addr % kPageSize != 0 || region.memory_size % kPageSize != 0) return -EINVAL;
  slots_[region.slot] = region;
  return 0;
}

int KvmModel::dirty_pages(int, uint32_t slot, std::span<uint64_t> bitmap) {
  touch("KVM_GET_DIRTY_LOG");
  const auto at = slots_.find(slot);
  if (at == slots_.end() || (at->second.flags & KVM_MEM_LOG_DIRTY_PAGES) == 0) return -ENOENT;
  if (memory_ == nullptr) return 0;
  const uint64_t first = memory_->page_index(GuestPhys(at->second.guest_phys_addr));
  const uint64_t pages = at->second.memory_size / kPageSize;
  for (uint64_t i = 0; i < pages; ++i) {
    uint8_t& flags = memory_->page_flags()[first + i];
    if ((flags & GuestMemory::kDirtyForTransfer) == 0) continue;
    flags &= static_cast<uint8_t>(~GuestMemory::kPageDirty);
    bitmap[i / 64] |= uint64_t{1} << (i % 64);
  }
  soft_->forget_dirty_pages();
  return 0;
}

int KvmModel::set_msr_filter(int, const kvm_msr_filter& filter) {
  filter_ = filter;
  filter_bitmaps_.clear();
  for (kvm_msr_filter_range& range : filter_.ranges) {
    if (range.nmsrs == 0) continue;
    filter_bitmaps_.emplace_back(range.bitmap, range.bitmap + (range.nmsrs + 7) / 8);
  }
  size_t next = 0;
  for (kvm_msr_filter_range& range : filter_.ranges)
    if (range.nmsrs != 0) range.bitmap = filter_bitmaps_[next++].data();
  return 0;
}

int KvmModel::create_vcpu(int) {
  if (slots_.empty()) return -EINVAL;
  uint64_t bytes = 0;
  for (const auto& [slot, region] : slots_) bytes += region.memory_size;
  debug_ = {};
  debug_installed_ = access_open_ = access_done_ = priority_exit_ = false;
  soft_.reset();  // one of a VM before looks at that one's memory as it goes
  memory_ = GuestMemory::view_of(reinterpret_cast<uint8_t*>(slots_.at(0).userspace_addr), bytes);
  soft_ = std::make_unique<SoftVcpu>(*memory_, static_cast<Bus&>(*this));
  Cpu& cpu = c();
  cpu.intercepts.msrs = cpu.intercepts.resume_flag = true;
  cpu.intercepts.time = time_exits_;
  fiber_ = std::make_unique<Fiber>([this] { guest(); });
  if (perf_ != nullptr)
    perf_->attach([this] { return c().branches; },
                  [this](int signal) { pending_signals_.fetch_or(uint64_t{1} << (signal - 1)); });
  ++open_files_;
  return kVcpu;
}

kvm_run* KvmModel::map_run_page(int, size_t bytes) {
  return bytes == kPageBytes ? &page() : nullptr;
}

int KvmModel::set_cpuid(int, std::span<const kvm_cpuid_entry2> entries) {
  constexpr size_t kEntriesMax = 256;
  return entries.size() > kEntriesMax ? -E2BIG : 0;
}

int KvmModel::get_regs(int, kvm_regs& out) {
  touch("KVM_GET_REGS");
  out = to_regs(c());
  if ((debug_.control & KVM_GUESTDBG_SINGLESTEP) != 0) out.rflags &= ~flag::kTf;
  return 0;
}

int KvmModel::set_regs(int, const kvm_regs& in) {
  touch("KVM_SET_REGS");
  Cpu& cpu = c();
  from_regs(in, cpu);
  if (options_.resume_flag_works) cpu.rflags_other |= in.rflags & flag::kRf;
  if ((debug_.control & KVM_GUESTDBG_SINGLESTEP) != 0 && linear_rip() == step_rip_)
    cpu.rflags_other |= flag::kTf;
  soft_->refresh();
  return 0;
}

int KvmModel::get_sregs(int, kvm_sregs& out) {
  touch("KVM_GET_SREGS");
  kvm_sregs base{};
  base.cr8 = cr8_;
  base.apic_base = apic_base_;
  out = to_sregs(c(), base);
  // What a processor leaves in the hidden part of a segment it may not use.
  for (kvm_segment* s : {&out.ds, &out.es, &out.fs, &out.gs})
    if (s->unusable != 0) s->limit = 0xffff'ffff, s->type = 1, s->db = 1;
  return 0;
}

int KvmModel::set_sregs(int, const kvm_sregs& in) {
  touch("KVM_SET_SREGS");
  Cpu& cpu = c();
  from_sregs(in, cpu);
  apic_base_ = in.apic_base;
  cr8_ = static_cast<uint8_t>(in.cr8);
  flush_tlb_all(cpu);
  soft_->refresh();
  return 0;
}

// As XSAVE does: a component in its initial state is left out, and its place holds anything.
int KvmModel::get_xsave(int, XsaveArea& out) {
  touch("KVM_GET_XSAVE");
  to_xsave(c(), out);
  constexpr size_t kComponents = 512, kRegisters = 32, kXmm = 160;
  const X87State& f = c().fpu;
  bool initial = f.control == 0x37f && f.status == 0 && f.valid == 0 && f.opcode == 0 &&
                 f.ip == 0 && f.dp == 0;
  for (const auto& reg : f.reg) initial = initial && reg.mantissa == 0 && reg.exponent == 0;
  if (initial) {
    std::memset(out.bytes, 0xa5, 24);
    std::memset(out.bytes + kRegisters, 0xa5, kXmm - kRegisters);
    out.bytes[kComponents] &= static_cast<uint8_t>(~1);
  }
  return 0;
}

int KvmModel::set_xsave(int, const XsaveArea& in) {
  touch("KVM_SET_XSAVE");
  from_xsave(in, c());
  soft_->refresh();
  return 0;
}

int KvmModel::get_xcrs(int, kvm_xcrs& out) {
  out = {};
  out.nr_xcrs = 1;
  out.xcrs[0].value = c().xcr0;
  return 0;
}

int KvmModel::set_xcrs(int, const kvm_xcrs& in) {
  c().xcr0 = in.xcrs[0].value;
  return 0;
}

int KvmModel::get_msrs(int, std::span<kvm_msr_entry> entries) {
  touch("KVM_GET_MSRS");
  for (size_t i = 0; i < entries.size(); ++i) {
    uint64_t value = 0;
    if (!read_msr(c(), entries[i].index, value)) return static_cast<int>(i);
    entries[i].data = value;
  }
  return static_cast<int>(entries.size());
}

int KvmModel::set_msrs(int, std::span<const kvm_msr_entry> entries) {
  touch("KVM_SET_MSRS");
  for (size_t i = 0; i < entries.size(); ++i)
    if (!write_msr(c(), entries[i].index, entries[i].data)) return static_cast<int>(i);
  return static_cast<int>(entries.size());
}

int KvmModel::get_events(int, kvm_vcpu_events& out) {
  touch("KVM_GET_VCPU_EVENTS");
  out = {};
  const Cpu& cpu = c();
  if (cpu.intercepts.fault_held) {
    out.exception.injected = 1;
    out.exception.nr = cpu.fault.vector;
    out.exception.has_error_code = cpu.fault.has_error;
    out.exception.error_code = cpu.fault.error;
  }
  if (cpu.interrupt_shadow)
    out.interrupt.shadow =
        cpu.trap_hold == TrapHold::kAll ? KVM_X86_SHADOW_INT_MOV_SS : KVM_X86_SHADOW_INT_STI;
  out.nmi.masked = cpu.nmi_blocked;
  return 0;
}

int KvmModel::set_events(int, const kvm_vcpu_events& in) {
  touch("KVM_SET_VCPU_EVENTS");
  Cpu& cpu = c();
  cpu.intercepts.fault_held = in.exception.injected != 0;
  if (in.exception.injected != 0)
    cpu.fault = {.vector = in.exception.nr,
                 .has_error = in.exception.has_error_code != 0,
                 .software = false,
                 .error = in.exception.error_code};
  if ((in.flags & KVM_VCPUEVENT_VALID_SHADOW) != 0) {
    cpu.interrupt_shadow = in.interrupt.shadow != 0;
    cpu.trap_hold = TrapHold::kNone;
  }
  cpu.nmi_blocked = in.nmi.masked != 0;
  return 0;
}

int KvmModel::get_debug_registers(int, kvm_debugregs& out) {
  touch("KVM_GET_DEBUGREGS");
  out = {};
  for (unsigned i = 0; i < 4; ++i) out.db[i] = c().dr[i];
  out.dr6 = c().dr6, out.dr7 = c().dr7;
  return 0;
}

int KvmModel::set_debug_registers(int, const kvm_debugregs& in) {
  for (unsigned i = 0; i < 4; ++i) c().dr[i] = in.db[i];
  c().dr6 = in.dr6, c().dr7 = in.dr7;
  return 0;
}

int KvmModel::unblock_in_run(int, std::span<const int> signals) {
  unblocked_in_run_.insert(signals.begin(), signals.end());
  return 0;
}

}  // namespace us::hv::kvm::model
