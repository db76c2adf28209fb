// A virtual machine of KVM's with one vCPU, set up as the backend needs it: interrupt controllers
// and timers in userspace, our CPUID, every MSR but a few sent to us, no virtual PMU.
#pragma once

#include <memory>
#include <span>

#include "base/result.h"
#include "hv/core/memory.h"
#include "hv/kvm/features.h"
#include "hv/kvm/kvm_host.h"
#include "hv/kvm/state_convert.h"

namespace us::hv::kvm {

class Vm {
 public:
  // KVM-001: no /dev/kvm, or no right to it. KVM-002: a kernel that lacks something. KVM-003: the
  // kernel refused a step of the set-up. `host` and `memory` outlive the VM.
  static Result<std::unique_ptr<Vm>> create(KvmHost& host, GuestMemory& memory);
  ~Vm();
  Vm(const Vm&) = delete;
  Vm& operator=(const Vm&) = delete;

  KvmHost& host() { return host_; }
  int vcpu() const { return vcpu_; }
  kvm_run& page() { return *page_; }
  const Features& features() const { return features_; }
  // The memory could not be pinned, with the kernel's reason; 0: it was.
  int pin_error() const { return pin_error_; }

  Status set_cpuid(std::span<const kvm_cpuid_entry2> table);
  // Marks what the guest wrote since the last call in the memory's page flags.
  void collect_dirty_pages();

 private:
  Vm(KvmHost& host, GuestMemory& memory) : host_(host), memory_(memory) {}
  Status open();
  Status make_vm();
  Status add_memory(uint32_t slot, GuestPhys start, uint64_t bytes);
  Status make_vcpu();
  bool offer(uint32_t cap, uint64_t argument);
  void collect_slot(uint32_t slot, GuestPhys start, uint64_t bytes);

  KvmHost& host_;
  GuestMemory& memory_;
  int device_ = -1, vm_ = -1, vcpu_ = -1;
  kvm_run* page_ = nullptr;
  size_t page_bytes_ = 0;
  Features features_;
  MsrFilter msr_filter_;
  int pin_error_ = 0;
};

// Whether `host` has /dev/kvm with everything Vm needs; the errors of Vm::create but for KVM-003.
Status check_kvm(KvmHost& host);
// What the kernel offers a VM beyond that.
Features features_of(KvmHost& host, int vm);

}  // namespace us::hv::kvm
