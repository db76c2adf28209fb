#include "hv/kvm/vm.h"

#include <cerrno>
#include <cstring>
#include <vector>

#include "hv/kvm/patch_abi.h"

namespace us::hv::kvm {
namespace {

constexpr int kApiVersion = 12;  // api.rst 4.1: the only one there will ever be

// Below the top of the 32-bit space, where no guest has memory. Used by KVM on processors that
// cannot run real mode unaided; others ask for it all the same. api.rst 4.42, 4.78
constexpr uint64_t kIdentityMap = 0xfeff'c000, kTaskState = 0xfeff'd000;

struct Need {
  uint32_t cap;
  const char* name;
};
constexpr Need kNeeds[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_SET_GUEST_DEBUG, "KVM_CAP_SET_GUEST_DEBUG"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    {KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"},
    {KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
    {KVM_CAP_XCRS, "KVM_CAP_XCRS"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    {KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR"},
    {KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER"},
};

UserError no_device(int error) {
  const bool denied = error == EACCES || error == EPERM;
  return {.id = "KVM-001",
          .exit_code = ExitCode::kHostCannot,
          .what = "/dev/kvm cannot be opened",
          .seen = std::strerror(error),
          .needed =
              "a processor with virtualisation, its kvm modules loaded, and the right to "
              "read and write /dev/kvm",
          .mend = denied ? "add the user to the group `kvm` and log in again"
                         : "switch virtualisation on in the firmware and run `modprobe kvm_intel`; "
                           "or use the software processor (`--backend soft`)"};
}

UserError lacking(std::string what) {
  return {.id = "KVM-002",
          .exit_code = ExitCode::kHostCannot,
          .what = "this kernel's KVM lacks something",
          .seen = std::move(what),
          .needed = "Linux 5.10 or newer",
          .mend = "run a newer kernel, or use the software processor (`--backend soft`)"};
}

UserError refused(const char* call, int result) {
  return {.id = "KVM-003",
          .exit_code = ExitCode::kHostCannot,
          .what = fmt::format("KVM refused {}", call),
          .seen = std::strerror(-result),
          .needed = "a kernel that runs virtual machines of this kind",
          .mend =
              "`understudy hostcheck` says what this host can do; `--backend soft` runs "
              "anywhere"};
}

Status check_device(KvmHost& host, int device) {
  if (const int version = host.api_version(device); version != kApiVersion)
    return lacking(fmt::format("API version {}", version));
  for (const Need& need : kNeeds)
    if (host.check_extension(device, need.cap) <= 0) return lacking(std::string("no ") + need.name);
  return Done{};
}

}  // namespace

Features features_of(KvmHost& host, int vm) {
  const auto has = [&](uint32_t cap) { return host.check_extension(vm, cap) > 0; };
  return {.time_exits =
              (host.check_extension(vm, US_KVM_CAP_X86_TSC_EXIT) & US_KVM_TSC_EXIT_RDTSC) != 0,
          .monitor_steps = has(US_KVM_CAP_X86_MTF_STEP),
          .hides_spurious_faults = has(US_KVM_CAP_X86_HIDE_SPURIOUS_PF),
          .guest_only_trace = has(US_KVM_CAP_X86_PT_GUEST_ONLY)};
}

Status check_kvm(KvmHost& host) {
  const int device = host.open_device();
  if (device < 0) return no_device(-device);
  Status status = check_device(host, device);
  host.close(device);
  return status;
}

Result<std::unique_ptr<Vm>> Vm::create(KvmHost& host, GuestMemory& memory) {
  std::unique_ptr<Vm> vm(new Vm(host, memory));
  host.watch(memory);
  if (Status s = vm->open(); !s.ok()) return s.error();
  if (Status s = vm->make_vm(); !s.ok()) return s.error();
  if (Status s = vm->make_vcpu(); !s.ok()) return s.error();
  return vm;
}

Vm::~Vm() {
  if (page_ != nullptr) host_.unmap_run_page(page_, page_bytes_);
  for (const int fd : {vcpu_, vm_, device_})
    if (fd >= 0) host_.close(fd);
}

Status Vm::open() {
  device_ = host_.open_device();
  if (device_ < 0) return no_device(-device_);
  return check_device(host_, device_);
}

// Switches a capability on where the kernel has it.
bool Vm::offer(uint32_t cap, uint64_t argument) {
  return host_.check_extension(vm_, cap) > 0 && host_.enable_capability(vm_, cap, argument) >= 0;
}

Status Vm::make_vm() {
  vm_ = host_.create_vm(device_);
  if (vm_ < 0) return refused("KVM_CREATE_VM", vm_);
  // Before the first vCPU. Not to be had with every module; then CPUID without leaf 0xA does it.
  offer(KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE);
  constexpr uint64_t kAllReasons =
      KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER;
  if (const int r = host_.enable_capability(vm_, KVM_CAP_X86_USER_SPACE_MSR, kAllReasons); r < 0)
    return refused("KVM_CAP_X86_USER_SPACE_MSR", r);
  const Features offered = features_of(host_, vm_);
  features_ = {
      .time_exits = offered.time_exits && offer(US_KVM_CAP_X86_TSC_EXIT, US_KVM_TSC_EXIT_RDTSC),
      .monitor_steps = offered.monitor_steps && offer(US_KVM_CAP_X86_MTF_STEP, 0),
      .hides_spurious_faults =
          offered.hides_spurious_faults && offer(US_KVM_CAP_X86_HIDE_SPURIOUS_PF, 0),
      .guest_only_trace = offered.guest_only_trace && offer(US_KVM_CAP_X86_PT_GUEST_ONLY, 0)};
  if (const int r = host_.set_identity_map_address(vm_, kIdentityMap); r < 0)
    return refused("KVM_SET_IDENTITY_MAP_ADDR", r);
  if (const int r = host_.set_task_state_address(vm_, kTaskState); r < 0)
    return refused("KVM_SET_TSS_ADDR", r);
  if (Status s = add_memory(0, GuestPhys(0), memory_.low_size()); !s.ok()) return s;
  if (memory_.high_size() == 0) return Done{};
  return add_memory(1, GuestPhys(GuestMemory::kHighBase), memory_.high_size());
}

Status Vm::add_memory(uint32_t slot, GuestPhys start, uint64_t bytes) {
  uint8_t* const host = memory_.host(start);
  if (const int r = host_.pin_memory(host, bytes); r < 0) pin_error_ = -r;
  kvm_userspace_memory_region region{};
  region.slot = slot;
  region.flags = KVM_MEM_LOG_DIRTY_PAGES;
  region.guest_phys_addr = start.value;
  region.memory_size = bytes;
  region.userspace_addr = reinterpret_cast<uint64_t>(host);
  if (const int r = host_.set_memory(vm_, region); r < 0)
    return refused("KVM_SET_USER_MEMORY_REGION", r);
  return Done{};
}

Status Vm::make_vcpu() {
  vcpu_ = host_.create_vcpu(vm_);
  if (vcpu_ < 0) return refused("KVM_CREATE_VCPU", vcpu_);
  const int bytes = host_.run_page_bytes(device_);
  if (bytes < static_cast<int>(sizeof(kvm_run))) return refused("KVM_GET_VCPU_MMAP_SIZE", -EINVAL);
  page_bytes_ = static_cast<size_t>(bytes);
  page_ = host_.map_run_page(vcpu_, page_bytes_);
  if (page_ == nullptr) return refused("the mapping of a vCPU's run page", -ENOMEM);
  // After the vCPU: kernels before 5.16 apply the filter to vCPUs that exist.
  if (const int r = host_.set_msr_filter(vm_, msr_filter_.filter); r < 0)
    return refused("KVM_X86_SET_MSR_FILTER", r);
  return Done{};
}

Status Vm::set_cpuid(std::span<const kvm_cpuid_entry2> table) {
  if (const int r = host_.set_cpuid(vcpu_, table); r < 0) return refused("KVM_SET_CPUID2", r);
  return Done{};
}

void Vm::collect_slot(uint32_t slot, GuestPhys start, uint64_t bytes) {
  const uint64_t pages = bytes / kPageSize;
  std::vector<uint64_t> bitmap((pages + 63) / 64);
  const int r = host_.dirty_pages(vm_, slot, bitmap);
  US_CHECK(r >= 0, "KVM_GET_DIRTY_LOG: {}", std::strerror(-r));
  uint8_t* const flags = memory_.page_flags() + memory_.page_index(start);
  for (uint64_t word = 0; word < bitmap.size(); ++word) {
    for (uint64_t left = bitmap[word]; left != 0; left &= left - 1) {
      const auto page = word * 64 + static_cast<uint64_t>(__builtin_ctzll(left));
      flags[page] |= GuestMemory::kPageDirty;
    }
  }
}

void Vm::collect_dirty_pages() {
  collect_slot(0, GuestPhys(0), memory_.low_size());
  if (memory_.high_size() != 0)
    collect_slot(1, GuestPhys(GuestMemory::kHighBase), memory_.high_size());
}

}  // namespace us::hv::kvm
