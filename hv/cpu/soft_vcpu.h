// The software backend: one x86-64 processor, executed block by block, interpreted or translated,
// that counts its own instructions and conditional branches exactly.
#pragma once

#include <atomic>
#include <memory>

#include "hv/core/executor.h"
#include "hv/core/vcpu.h"
#include "hv/cpu/cpu.h"

namespace us::hv {

class Translator;

class SoftVcpu final : public Vcpu {
 public:
  SoftVcpu(GuestMemory& memory, Bus& bus, Executor executor = default_executor());
  ~SoftVcpu() override;

  VcpuCaps caps() const override;
  StopReason run(const RunRequest& request) override;
  StopReason step() override;
  ExecutionPoint point() const override;
  Branches branches() const override { return Branches(cpu_->branches); }
  bool interruptible() const override;
  void inject_interrupt(uint8_t vector) override;
  void inject_nmi() override;
  bool nmi_waiting() const override { return cpu_->nmi_pending; }
  bool halted() const override { return cpu_->halted; }
  void kick() override;
  Registers registers() const override;
  void set_registers(const Registers& registers) override;
  void save(ByteWriter& out) override;
  Status load(ByteReader& in) override;
  void save_translations(ByteWriter& out) const override;
  Status load_translations(ByteReader& in) override;
  void digest_state(ByteWriter& out) const override;
  void collect_dirty_pages() override {}  // every store marks its page
  void forget_dirty_pages() override { drop_write_tags(*cpu_); }
  std::optional<UserError> failure() const override { return std::nullopt; }
  std::string dump() const override;

  Result<ipt::TraceSetup> start_trace(const TraceRequest& request) override;
  void cut_trace() override;
  void stop_trace() override;
  bool tracing() const override { return trace_ != nullptr; }

  void drop_caches() override;
  std::string remarks() const override;

  // Null: everything is interpreted.
  const Translator* translator() const { return translator_.get(); }
  // For tests: kick() as another thread might, at the beginning of the `blocks`-th translated block
  // from now; 0: no more. Blocks count that are translated after the first call. Precondition:
  // there is a translator.
  void kick_after(uint32_t blocks);

  // For boot code and tests: the state itself. Call refresh() after changing more than the general
  // registers.
  Cpu& cpu() { return *cpu_; }
  const Cpu& cpu() const { return *cpu_; }
  void refresh();

 private:
  bool stop_before_running(const RunRequest& request, StopReason& reason, bool first);
  bool needs_stepping(const RunRequest& request) const;
  void run_blocks();
  // One instruction by the stepper; true if the bus asked for attention.
  bool step_instruction();
  void handle_exit();
  // State was set from outside: the trace goes on at the new place.
  void move_trace();

  std::unique_ptr<Cpu> cpu_;
  std::unique_ptr<Translator> translator_;  // null: everything is interpreted
  std::atomic<bool> kicked_{false};
  std::unique_ptr<ipt::PacketWriter> trace_;
};

}  // namespace us::hv
