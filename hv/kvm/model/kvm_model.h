// The seam's other side without a kernel: /dev/kvm as api.rst and Linux's arch/x86/kvm describe it,
// with the software processor where the hardware would be. Single VM, single vCPU.
//
// It answers as KVM does where that is awkward: accesses are completed by the next KVM_RUN only;
// signals end a run anywhere, also with an exception half delivered; TF is the guest's flag and is
// lost on the way into handlers; a task priority that rises is not reported. Misuse that hardware
// would punish far from its cause is noted in `violations`.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "hv/core/bus.h"
#include "hv/cpu/soft_vcpu.h"
#include "hv/kvm/cpuid_table.h"
#include "hv/kvm/kvm_host.h"
#include "hv/kvm/model/fiber.h"
#include "hv/kvm/model/perf_model.h"
#include "hv/kvm/model/trace_model.h"
#include "hv/kvm/state_convert.h"
#include "pmu/random.h"

namespace us::hv::kvm::model {

struct KvmModelOptions {
  uint64_t seed = 1;
  // Runs are ended by signals that mean nothing: one entry in so many at once, and running guests
  // after about so many instructions or branches. 0: never.
  uint64_t interrupt_entry_one_in = 0;
  uint64_t interrupt_after_steps = 0;
  uint64_t interrupt_after_branches = 0;
  // One exception in so many is caught by a signal before it is delivered.
  uint64_t interrupt_delivery_one_in = 0;
  // The patched modules.
  bool time_exits = false;
  bool monitor_steps = false;
  bool hides_spurious_faults = false;
  bool guest_only_trace = false;
  bool resume_flag_works = true;
  // A step that ends amid a string sets RF, one that ends behind an STI leaves its shadow.
  bool step_shows_holds = true;
  bool halt_ends_step = true;  // a stepped HLT is reported as such, not as a step
  // What the host lacks.
  int open_error = 0;
  std::set<uint32_t> absent = {};  // capabilities
  int api_version = 12;
  int create_vm_error = 0;
  int pin_error = 0;
  unsigned processors = 4;
  // Features taken out of KVM_GET_SUPPORTED_CPUID's leaf 1 ECX.
  uint32_t missing_features_ecx = 0;
};

class KvmModel final : public KvmHost, private Bus {
 public:
  explicit KvmModel(const KvmModelOptions& options, PerfModel* perf = nullptr,
                    TraceModel* trace = nullptr);
  ~KvmModel() override;

  // The next KVM_RUN that reaches `branches` retired ends with this.
  void fail_next(uint32_t exit_reason, uint32_t suberror) { failure_ = {exit_reason, suberror}; }

  std::vector<std::string> violations;
  uint64_t runs = 0, interruptions = 0, held_deliveries = 0, accesses = 0;
  int open_files() const { return open_files_; }
  const Cpu& cpu() const { return soft_->cpu(); }

  // --- KvmHost
  int open_device() override;
  void close(int fd) override;
  int api_version(int) override { return options_.api_version; }
  int check_extension(int fd, uint32_t cap) override;
  int create_vm(int device) override;
  int run_page_bytes(int) override { return kPageBytes; }
  int supported_cpuid(int device, std::span<kvm_cpuid_entry2> entries) override;
  int enable_capability(int vm, uint32_t cap, uint64_t argument) override;
  int set_memory(int vm, const kvm_userspace_memory_region& region) override;
  int dirty_pages(int vm, uint32_t slot, std::span<uint64_t> bitmap) override;
  int set_task_state_address(int, uint64_t) override { return 0; }
  int set_identity_map_address(int, uint64_t) override { return 0; }
  int set_msr_filter(int vm, const kvm_msr_filter& filter) override;
  int create_vcpu(int vm) override;
  kvm_run* map_run_page(int vcpu, size_t bytes) override;
  void unmap_run_page(kvm_run*, size_t) override {}
  int set_cpuid(int vcpu, std::span<const kvm_cpuid_entry2> entries) override;
  int get_regs(int vcpu, kvm_regs& out) override;
  int set_regs(int vcpu, const kvm_regs& in) override;
  int get_sregs(int vcpu, kvm_sregs& out) override;
  int set_sregs(int vcpu, const kvm_sregs& in) override;
  int get_xsave(int vcpu, XsaveArea& out) override;
  int set_xsave(int vcpu, const XsaveArea& in) override;
  int get_xcrs(int vcpu, kvm_xcrs& out) override;
  int set_xcrs(int vcpu, const kvm_xcrs& in) override;
  int get_msrs(int vcpu, std::span<kvm_msr_entry> entries) override;
  int set_msrs(int vcpu, std::span<const kvm_msr_entry> entries) override;
  int get_events(int vcpu, kvm_vcpu_events& out) override;
  int set_events(int vcpu, const kvm_vcpu_events& in) override;
  int get_debug_registers(int vcpu, kvm_debugregs& out) override;
  int set_debug_registers(int vcpu, const kvm_debugregs& in) override;
  int set_guest_debug(int vcpu, const kvm_guest_debug& in) override;
  int unblock_in_run(int vcpu, std::span<const int> signals) override;
  int run(int vcpu) override;
  pid_t this_thread() override { return 4711; }
  void block_signals(std::span<const int> signals) override;
  bool take_signal(int signal) override;
  void send_signal(pid_t thread, int signal) override;
  int pin_memory(void*, size_t) override { return -options_.pin_error; }
  int pin_thread(unsigned cpu) override { return cpu < options_.processors ? 0 : -EINVAL; }
  void watch(GuestMemory& memory) override { vmm_memory_ = &memory; }

  static constexpr int kPageBytes = 3 * 4096;

 private:
  static constexpr uint64_t kDataOffset = 4096;
  struct Stop {  // how a KVM_RUN ends
    int result = 0;
    uint32_t reason = 0;
  };

  // --- Bus, towards the modelled processor
  uint32_t pio_read(uint16_t port, unsigned size) override;
  void pio_write(uint16_t port, unsigned size, uint32_t value) override;
  uint64_t mmio_read(GuestPhys address, unsigned size) override;
  void mmio_write(GuestPhys address, unsigned size, uint64_t value) override;
  bool msr_read(uint32_t index, uint64_t& value) override;
  bool msr_write(uint32_t index, uint64_t value) override;
  uint8_t task_priority() override { return cr8_; }
  void set_task_priority(uint8_t priority) override;
  GuestTsc tsc(Branches now) override;
  void set_tsc(Branches, GuestTsc) override {}
  bool take_attention() override;

  kvm_run& page() { return *reinterpret_cast<kvm_run*>(page_); }
  Cpu& c() { return soft_->cpu(); }
  void guest();  // the fiber's body
  Stop run_guest();
  Stop run_stretch();
  std::optional<Stop> at_boundary();
  std::optional<Stop> debug_stop();
  Stop interrupted();
  Stop monitor_step();
  void enter_guest();
  void leave_guest();
  bool signal_pending() const;
  void wait_for(uint32_t reason);  // exit with an access, come back when it is answered
  void port(bool in, uint16_t port, unsigned size);
  bool ask_msr(bool write, uint32_t index, uint64_t& value);
  bool guest_reads_msr();
  void deliver_held();
  void begin_entry();
  void install_debug();
  void remove_debug();
  bool guest_wrote_debug() const;
  void reclaim_debug();
  void note(std::string text) { violations.push_back(std::move(text)); }
  void touch(const char* call);
  uint64_t linear_rip();

  KvmModelOptions options_;
  PerfModel* perf_;
  TraceModel* trace_;
  pmu::Random random_;
  int open_files_ = 0;
  bool vm_open_ = false;
  std::map<uint32_t, kvm_userspace_memory_region> slots_;
  std::unique_ptr<GuestMemory> memory_;
  GuestMemory* vmm_memory_ = nullptr;
  std::unique_ptr<SoftVcpu> soft_;
  std::unique_ptr<Fiber> fiber_;
  alignas(4096) uint8_t page_[kPageBytes] = {};
  kvm_msr_filter filter_{};
  std::vector<std::vector<uint8_t>> filter_bitmaps_;
  bool user_msrs_ = false, time_exits_ = false, monitor_steps_ = false;
  uint64_t apic_base_ = 0xfee0'0900;
  uint64_t wall_ = 0;  // what an RDTSC that does not exit reads

  Stop stop_;                 // of the KVM_RUN under way
  bool access_open_ = false;  // the fiber waits inside an instruction
  bool access_done_ = false;  // the instruction at hand made one
  bool priority_exit_ = false;
  uint8_t cr8_ = 0;
  kvm_guest_debug debug_{};
  uint64_t step_rip_ = 0;
  uint64_t guest_dr_[4] = {}, guest_dr7_ = 0;
  bool debug_installed_ = false;
  std::optional<uint64_t> interrupt_branches_;  // a meaningless signal arrives there
  std::optional<uint64_t> interrupt_steps_;     // ...or after so many instructions
  std::optional<std::pair<uint32_t, uint32_t>> failure_;

  std::set<int> blocked_, unblocked_in_run_;
  std::atomic<uint64_t> pending_signals_{0};
};

}  // namespace us::hv::kvm::model
