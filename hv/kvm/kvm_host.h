// The narrow seam between the KVM backend and the kernel: every operation of /dev/kvm that the
// backend uses, typed, and the few signal calls that go with KVM_RUN. RealKvmHost is the kernel;
// tests put a model with the software processor in its place (hv/kvm/model/).
//
// Functions return what the system call returns, or -errno. Sources: Linux
// Documentation/virt/kvm/api.rst, numbers in brackets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <linux/kvm.h>
#include <memory>
#include <span>
#include <sys/types.h>

namespace us::hv {
class GuestMemory;
}

namespace us::hv::kvm {

// The legacy and header part of an XSAVE area as KVM_GET_XSAVE gives it: linux/kvm.h's own
// structure ends in a flexible array, whose size C++ gets wrong.
struct XsaveArea {
  static constexpr size_t kBytes = 4096;
  alignas(64) uint8_t bytes[kBytes];
};

class KvmHost {
 public:
  virtual ~KvmHost() = default;

  // --- /dev/kvm
  virtual int open_device() = 0;
  virtual void close(int fd) = 0;
  virtual int api_version(int device) = 0;                          // [4.1]
  virtual int check_extension(int device_or_vm, uint32_t cap) = 0;  // [4.4]
  virtual int create_vm(int device) = 0;                            // [4.2]
  virtual int run_page_bytes(int device) = 0;                       // [4.5]
  // Fills at most entries.size(); returns how many there are. [4.46]
  virtual int supported_cpuid(int device, std::span<kvm_cpuid_entry2> entries) = 0;

  // --- a VM
  virtual int enable_capability(int vm, uint32_t cap, uint64_t argument) = 0;      // [4.37]
  virtual int set_memory(int vm, const kvm_userspace_memory_region& region) = 0;   // [4.35]
  virtual int dirty_pages(int vm, uint32_t slot, std::span<uint64_t> bitmap) = 0;  // [4.8]
  virtual int set_task_state_address(int vm, uint64_t address) = 0;                // [4.42]
  virtual int set_identity_map_address(int vm, uint64_t address) = 0;              // [4.78]
  virtual int set_msr_filter(int vm, const kvm_msr_filter& filter) = 0;            // [4.97]
  virtual int create_vcpu(int vm) = 0;                                             // [4.7]

  // --- a vCPU
  virtual kvm_run* map_run_page(int vcpu, size_t bytes) = 0;  // null: refused
  virtual void unmap_run_page(kvm_run* page, size_t bytes) = 0;
  virtual int set_cpuid(int vcpu, std::span<const kvm_cpuid_entry2> entries) = 0;  // [4.76]
  virtual int get_regs(int vcpu, kvm_regs& out) = 0;
  virtual int set_regs(int vcpu, const kvm_regs& in) = 0;
  virtual int get_sregs(int vcpu, kvm_sregs& out) = 0;
  virtual int set_sregs(int vcpu, const kvm_sregs& in) = 0;
  virtual int get_xsave(int vcpu, XsaveArea& out) = 0;
  virtual int set_xsave(int vcpu, const XsaveArea& in) = 0;
  virtual int get_xcrs(int vcpu, kvm_xcrs& out) = 0;
  virtual int set_xcrs(int vcpu, const kvm_xcrs& in) = 0;
  // Both return how many were read or written before one that was refused. [4.18, 4.19]
  virtual int get_msrs(int vcpu, std::span<kvm_msr_entry> entries) = 0;
  virtual int set_msrs(int vcpu, std::span<const kvm_msr_entry> entries) = 0;
  virtual int get_events(int vcpu, kvm_vcpu_events& out) = 0;
  virtual int set_events(int vcpu, const kvm_vcpu_events& in) = 0;
  virtual int get_debug_registers(int vcpu, kvm_debugregs& out) = 0;
  virtual int set_debug_registers(int vcpu, const kvm_debugregs& in) = 0;
  virtual int set_guest_debug(int vcpu, const kvm_guest_debug& in) = 0;  // [4.87]
  // Signals that are blocked for the thread but not inside KVM_RUN: the mask without `signals`.
  // [4.21]
  virtual int unblock_in_run(int vcpu, std::span<const int> signals) = 0;
  virtual int run(int vcpu) = 0;  // [4.10]

  // --- the thread that runs the vCPU
  virtual pid_t this_thread() = 0;
  virtual void block_signals(std::span<const int> signals) = 0;
  // Takes one pending signal off the calling thread; false: it was not pending. Never waits.
  virtual bool take_signal(int signal) = 0;
  virtual void send_signal(pid_t thread, int signal) = 0;
  // Keeps memory from moving, being merged or being paged out. -errno where the host refuses.
  virtual int pin_memory(void* start, size_t bytes) = 0;
  // Keeps the calling thread on one processor. -errno where there is none of that number.
  virtual int pin_thread(unsigned cpu) = 0;
  // The memory that the VM will be given. A model's processor keeps decoded code, and is told here
  // where to learn of writes by others; a kernel need not know.
  virtual void watch(GuestMemory&) {}
};

// The kernel this runs on.
std::unique_ptr<KvmHost> real_kvm_host();

}  // namespace us::hv::kvm
