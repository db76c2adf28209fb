// The hardware backend: the guest runs on the processor, by KVM; where it is, a branch counter
// says. The same code drives a stock kernel and one with our modules (Features); what differs is
// said in caps().
//
// Between run() and step(), the vCPU stands at an instruction boundary with nothing in flight: an
// access that the guest waited for is completed, an exception that was about to be delivered is
// delivered, and the instruction after STI or MOV SS is done. Otherwise a place could not be landed
// on again, or what is applied there would find the guest in a state that no replay has. Interrupts
// are delivered at once, by the software processor's code on the guest's state: exactly where they
// were injected, and with nothing left to chance by the order of exits.
//
// Owned by one thread: the one that first runs it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "hv/core/vcpu.h"
#include "hv/cpu/cpu.h"
#include "hv/kvm/step_counter.h"
#include "hv/kvm/step_plan.h"
#include "hv/kvm/vm.h"
#include "ipt/capture/capture.h"
#include "pmu/counter.h"

namespace us::hv::kvm {

struct KvmOptions {
  // Makes the guest's branch counter, on the thread that runs the vCPU; its alarm sends `alarm` to
  // that thread. Empty: instructions are stepped and counted by looking at them.
  std::function<Result<std::unique_ptr<pmu::Counter>>(int alarm_signal)> counter = {};
  // The guest has agreed not to read the time stamp counter, so a kernel that cannot make it exit
  // will do; it is hidden from CPUID, on kernels that could as well, since a guest is to see the
  // same on both hosts of a pair.
  bool cooperative = false;
  bool use_monitor_steps = true;     // where the kernel has them
  std::optional<unsigned> cpu = {};  // its thread is kept there; nothing: wherever it is put
  std::shared_ptr<void> keeps = {};  // what has to live as long as the vCPU: the host's seams
  // Intel PT of this host; null: the guest cannot be traced. Outlives the vCPU.
  ipt::TraceHost* trace = nullptr;
  ipt::CaptureOptions capture = {};  // thread and scope are the vCPU's
};

class KvmVcpu final : public Vcpu {
 public:
  // Errors: those of Vm::create; KVM-004 the kernel cannot make RDTSC exit, the guest is not
  // cooperative, and instructions are not stepped. All references outlive the vCPU.
  static Result<std::unique_ptr<KvmVcpu>> create(KvmHost& host, GuestMemory& memory, Bus& bus,
                                                 KvmOptions options);
  ~KvmVcpu() override;

  VcpuCaps caps() const override;
  StopReason run(const RunRequest& request) override;
  StopReason step() override;
  ExecutionPoint point() const override;
  Branches branches() const override;
  bool interruptible() const override;
  void inject_interrupt(uint8_t vector) override;
  void inject_nmi() override { nmi_pending_ = true; }
  bool nmi_waiting() const override { return nmi_pending_; }
  bool halted() const override { return halted_; }
  void kick() override;
  Registers registers() const override;
  void set_registers(const Registers& registers) override;
  void save(ByteWriter& out) override { digest_state(out); }
  Status load(ByteReader& in) override;
  void drop_caches() override {}
  std::string remarks() const override;
  void collect_dirty_pages() override { vm_->collect_dirty_pages(); }
  void forget_dirty_pages() override {}
  std::optional<UserError> failure() const override { return failure_; }
  Result<ipt::TraceSetup> start_trace(const TraceRequest& request) override;
  void cut_trace() override;
  void stop_trace() override;
  bool tracing() const override { return capture_ != nullptr; }
  void digest_state(ByteWriter& out) const override;
  std::string dump() const override;

  const Features& features() const { return vm_->features(); }
  const pmu::Counter* counter() const { return counter_.get(); }
  struct Statistics {
    uint64_t runs = 0;         // KVM_RUN
    uint64_t interrupted = 0;  // of these, ended by a signal or a kick
    uint64_t steps = 0;
    uint64_t accesses = 0;            // ports, memory, MSRs, time
    uint64_t finished_events = 0;     // exceptions found in flight
    uint64_t left_shadows = 0;        // steps to be out of an interrupt shadow
    uint64_t software_delivered = 0;  // interrupts and NMIs
  };
  const Statistics& statistics() const { return statistics_; }
  const ipt::Capture* capture() const { return capture_.get(); }

 private:
  KvmVcpu(GuestMemory& memory, Bus& bus, KvmOptions options);
  Status open(KvmHost& host);
  void bind();

  // --- running (kvm_vcpu.cc)
  std::optional<StopReason> stop_before_running(const RunRequest& request, bool first);
  bool must_step() const;
  std::optional<StopReason> enter(const RunRequest& request);
  std::optional<StopReason> after_exit();
  bool arm(Branches alarm);
  void set_debug(uint32_t control, const StepPlan* plan, uint64_t breakpoint);
  void prepare_breakpoint(const RunRequest& request);
  bool executed_past_breakpoint(const RunRequest& request);
  int enter_kernel(bool complete_only);
  void took_signals();
  void complete();
  void settle();
  std::optional<StopReason> leave_shadow(const RunRequest& request);
  StopReason fail(UserError error);

  // --- exits (kvm_vcpu_exits.cc)
  bool serve();  // false: not an access
  void serve_port();
  void serve_memory();
  void serve_msr(bool write);
  void serve_time();
  void report_exit();
  UserError internal_error() const;

  // --- stepping (kvm_vcpu_step.cc)
  StopReason step_once();
  bool emulate_time(const StepPlan& plan);
  bool step_kernel(const StepPlan& plan);
  void finish_step(const StepPlan& plan, uint64_t from, bool ended_by_debug);
  bool holds(const StepPlan& plan, uint64_t from, bool was_open) const;
  void clean_frame(const StepPlan::Landing& landing);
  void count_branches(const StepPlan& plan, uint64_t from, bool trapped);
  void clean_flags_at(uint64_t linear, unsigned bytes);

  // --- tracing (kvm_vcpu_trace.cc)
  void find_trace();
  uint64_t trace_place() const;
  void trace_delivery(uint64_t from);

  // --- state (kvm_vcpu_state.cc)
  enum Part : unsigned { kRegs = 1, kSregs = 2, kEvents = 4, kCore = 7, kRest = 8, kAll = 15 };
  void fetch(unsigned parts) const;
  void fetch_rest() const;
  void store(unsigned parts);
  void store_rest();
  void store_events();
  void load_pdpte() const;
  void sync_apic_base();
  void deliver(const std::function<void(Cpu&)>& how);
  void finish_events();
  bool event_in_flight() const;
  void set_branches(Branches value);

  GuestMemory& memory_;
  Bus& bus_;
  KvmOptions options_;
  std::unique_ptr<Vm> vm_;
  std::unique_ptr<pmu::Counter> counter_;
  StepCounter* steps_ = nullptr;  // counter_, if it is one

  // The guest's state as last seen, as far as `fresh_` says; what KVM does not keep is only here.
  mutable Cpu shadow_;
  mutable unsigned fresh_ = 0;
  mutable kvm_vcpu_events events_{};
  mutable kvm_sregs sregs_{};
  mutable bool resume_flag_ = false;  // RFLAGS.RF, as the kernel gave it
  bool halted_ = false;
  bool shutdown_ = false;
  bool nmi_pending_ = false;
  bool apic_base_stale_ = true;

  // The last step ended where the guest takes no interrupt: amid a repeated string, or behind an
  // STI that opened the window. Processors say so, by RF (SDM 3B 18.3.1.1) and by the shadow; one
  // that emulates them was seen to say nothing.
  bool step_holds_ = false;
  bool access_pending_ = false;  // served, and not yet completed by another KVM_RUN
  bool attention_ = false;       // the bus asked for it while something was being finished
  bool resume_armed_ = false;    // entered with RF set, to get over the breakpoint
  bool debug_exit_ = false;      // the last KVM_RUN ended with KVM_EXIT_DEBUG
  uint32_t debug_control_ = 0;
  uint64_t debug_breakpoint_ = 0;
  std::optional<Branches> armed_for_;

  Branches base_;  // what branches() was when the counter read `origin_`
  Branches origin_;
  mutable Branches last_read_;
  mutable bool counted_ = false;  // last_read_ is of now
  mutable std::optional<UserError> failure_;

  std::optional<ipt::TracePmu> trace_pmu_;  // there: the guest can be traced
  std::unique_ptr<ipt::Capture> capture_;

  std::atomic<bool> kicked_{false};
  std::atomic<pid_t> thread_{0};
  Statistics statistics_;
};

}  // namespace us::hv::kvm
