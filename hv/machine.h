// A whole PC: one vCPU, memory, devices and the guest's clock. A machine is a deterministic
// function of its configuration, its boot image and the inputs applied to it at their points; it
// does not know where they come from.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/digest.h"
#include "base/result.h"
#include "hv/boot/boot.h"
#include "hv/core/bus.h"
#include "hv/core/clock.h"
#include "hv/core/input_output.h"
#include "hv/core/memory.h"
#include "hv/core/vcpu.h"
#include "hv/devices/platform.h"
#include "hv/memory_digest.h"

namespace us::hv {

struct MachineConfig {
  uint64_t memory_bytes = 256u << 20;
  PlatformConfig platform;
};

enum class MachineStop : uint8_t {
  kLimit,          // the branch limit of the request was reached
  kKicked,         // kick()
  kIdle,           // halted, and no interrupt is pending: only an input can go on
  kTimersChanged,  // next_deadline() is not what it was; run() again
  kBreakpoint,     // about to execute the instruction asked for
  kPower,          // the guest powered off, asked for a reset, or used the debug exit: see power()
  kShutdown,       // triple fault
  kFailed,         // the host cannot run it any further: see Vcpu::failure()
};

// What makes a machine's vCPU; memory and bus outlive it.
using VcpuFactory = std::function<Result<std::unique_ptr<Vcpu>>(GuestMemory& memory, Bus& bus)>;
// Of machines made from now on without one of their own. Empty, as at first: the software
// processor. What it refers to outlives every such machine.
void set_default_vcpu(VcpuFactory factory);

class Machine final : private Bus, private TimeSource {
 public:
  // Errors: those of GuestMemory::create, and of the factory. `output` outlives the machine.
  static Result<std::unique_ptr<Machine>> create(const MachineConfig& config, OutputSink& output,
                                                 const VcpuFactory& factory = {});
  ~Machine() override;

  // Loads a kernel and puts the vCPU at its entry. Errors: those of load_kernel.
  Status boot(BootConfig config);

  // Runs until something in the request or the guest stops it. Interrupts that devices have pending
  // are delivered on the way, as soon as the guest can take them.
  MachineStop run(const RunRequest& request);
  // One instruction or one delivered interrupt; the same stops as run(), kLimit when nothing
  // special.
  MachineStop step();

  // Applies an input at the current point.
  void apply(const Input& input);

  ExecutionPoint point() const { return vcpu_->point(); }
  // Any thread: makes run() return soon.
  void kick() { vcpu_->kick(); }

  GuestTsc now() override;
  std::optional<GuestTsc> next_deadline() { return platform_->next_deadline(); }
  // Halted with interrupts off and no NMI possible: nothing will ever wake it.
  bool halted_for_good() const;
  PowerStatus power() const { return platform_->power(); }
  // Interrupts and NMIs delivered since the last input was applied: part of what tells apart the
  // places an interrupt handler comes back to from those it left.
  uint64_t interrupts_since_input() const { return interrupts_since_input_; }

  Vcpu& vcpu() { return *vcpu_; }
  const Vcpu& vcpu() const { return *vcpu_; }
  GuestMemory& memory() { return *memory_; }
  Platform& platform() { return *platform_; }
  const GuestClock& clock() const { return clock_; }
  const MachineConfig& config() const { return config_; }

  // All but memory, as a section of a snapshot (hv/snapshot.h). Translations that the vCPU caches
  // go along, so that this machine and one restored from it behave alike.
  void save_state(ByteWriter& out);
  Status load_state(ByteReader& in);

  // Digests of the vCPU's registers, of devices and clock, of all memory, and of all three.
  Digest register_digest() const;
  Digest device_digest() const;
  // Hashes only pages written since the last call; part of both sides' runs alike, since it makes
  // the vCPU drop its cached write permissions.
  Digest memory_digest();
  Digest whole_digest();

  std::string dump() const;

 private:
  Machine(const MachineConfig& config, std::unique_ptr<GuestMemory> memory, OutputSink& output);
  Status make_vcpu(const VcpuFactory& factory);

  // Bus
  uint32_t pio_read(uint16_t port, unsigned size) override;
  void pio_write(uint16_t port, unsigned size, uint32_t value) override;
  uint64_t mmio_read(GuestPhys address, unsigned size) override;
  void mmio_write(GuestPhys address, unsigned size, uint64_t value) override;
  bool msr_read(uint32_t index, uint64_t& value) override;
  bool msr_write(uint32_t index, uint64_t value) override;
  uint8_t task_priority() override;
  void set_task_priority(uint8_t priority) override;
  GuestTsc tsc(Branches now) override;
  void set_tsc(Branches now, GuestTsc value) override;
  bool take_attention() override;
  // TimeSource
  uint64_t guest_offset() override { return clock_.guest_offset(); }

  // Delivers what is pending if the guest can take it now.
  void deliver_pending();
  bool timers_changed();
  std::optional<MachineStop> outcome(StopReason reason);

  MachineConfig config_;
  std::unique_ptr<GuestMemory> memory_;
  GuestClock clock_;
  std::unique_ptr<Platform> platform_;
  std::unique_ptr<Vcpu> vcpu_;
  MemoryDigest digest_;
  std::optional<GuestTsc> reported_deadline_;
  uint64_t interrupts_since_input_ = 0;
  int dump_token_ = 0;
};

}  // namespace us::hv
