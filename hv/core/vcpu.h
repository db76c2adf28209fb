// The virtual processor as the rest of the house sees it. Three backends implement it (software,
// KVM stock, KVM patched); they differ in capability flags, never in their callers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "base/types.h"
#include "hv/core/execution_point.h"
#include "ipt/epoch_digest.h"
#include "ipt/variation.h"

namespace us::ipt {
class TraceSink;
}

namespace us::hv {

struct VcpuCaps {
  const char* backend = "";          // "soft", "kvm"
  bool counts_instructions = false;  // ExecutionPoint::instructions is exact
  bool exact_alarm = false;          // the alarm can be had with no skid at all
  bool traps_rdtsc = false;          // TSC reads come from the machine's clock
  bool exact_step = false;           // step() never disturbs guest state (MTF or software)
  bool traces_pt = false;            // can produce an Intel PT stream of the guest
};

enum class StopReason : uint8_t {
  kAlarm,            // branches reached the requested count (perhaps late: see the point)
  kKicked,           // kick() was called
  kBreakpoint,       // about to execute the instruction at RunRequest::breakpoint
  kInterruptWindow,  // stop_when_interruptible was set and an interrupt can be injected now
  kHalted,           // HLT: waits for an interrupt; the point is after the HLT
  kAttention,        // Bus::take_attention() said so, right after that instruction
  kStepped,          // step() did one instruction (or delivered one fault)
  kShutdown,         // triple fault
  kFailed,           // the host cannot run it any further: see Vcpu::failure()
};

// What run() may do before it has to come back.
struct RunRequest {
  // Stop once this many conditional branches were retired. ~0: never.
  Branches alarm{~0ull};
  bool stop_when_interruptible = false;
  // Stop before executing the instruction at this address (linear RIP), checked before every
  // instruction but the first of the run.
  bool has_breakpoint = false;
  uint64_t breakpoint = 0;
};

// Plain architectural registers for landing's tie-breaks, divergence reports and tests.
struct Registers {
  uint64_t gpr[16] = {};  // RAX RCX RDX RBX RSP RBP RSI RDI R8-R15
  uint64_t rip = 0;
  uint64_t rflags = 2;
  uint64_t cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, efer = 0;
  uint16_t cs = 0, ss = 0, ds = 0, es = 0, fs = 0, gs = 0;
  uint64_t fs_base = 0, gs_base = 0;
  bool operator==(const Registers&) const = default;
};

// Tracing the guest, and nothing but the guest, with Intel PT: branches with uncompressed returns,
// no timing (ipt::kWitnessConfig).
struct TraceRequest {
  // Gets the bytes, on the vCPU thread, while the guest runs and in cut_trace() and stop_trace().
  // Outlives the tracing.
  ipt::TraceSink* sink = nullptr;
  // For modelled processors; real ones have what they have. Bytes gathered before the sink sees
  // them, and how two processors of one model may differ.
  size_t staging_bytes = size_t{1} << 16;
  ipt::VariationConfig variation = {};
};

class Vcpu {
 public:
  virtual ~Vcpu() = default;

  virtual VcpuCaps caps() const = 0;

  // Runs the guest until something in the request, or the guest itself, stops it, between two
  // instructions. Repeated string instructions of the software processor: see hv/cpu/string.cc.
  virtual StopReason run(const RunRequest& request) = 0;

  // Executes exactly one instruction (of a REP one up to 64 Ki elements), or delivers the fault it
  // raises. Pending injections are delivered first and count as the step.
  virtual StopReason step() = 0;

  virtual ExecutionPoint point() const = 0;
  // Of the point, what is known even while the guest waits for an access that the bus serves.
  virtual Branches branches() const = 0;

  // True when an external interrupt injected now would be taken at once (IF set, no STI or MOV SS
  // shadow, not shut down).
  virtual bool interruptible() const = 0;
  // Delivers vector `vector` before the next instruction; ends a halt. Precondition:
  // interruptible().
  virtual void inject_interrupt(uint8_t vector) = 0;
  // Delivers an NMI before the next instruction unless one is in service; then right after its
  // IRET.
  virtual void inject_nmi() = 0;
  // An injected NMI has not been delivered yet.
  virtual bool nmi_waiting() const = 0;
  virtual bool halted() const = 0;

  // Makes a running run() return kKicked soon (or the next one, at once). From any thread.
  virtual void kick() = 0;

  virtual Registers registers() const = 0;
  // Sets the general registers, RIP and RFLAGS (others are ignored).
  virtual void set_registers(const Registers& registers) = 0;

  // The whole architectural state, versioned by the snapshot that holds it; load() also drops every
  // cached translation.
  virtual void save(ByteWriter& out) = 0;
  virtual Status load(ByteReader& in) = 0;

  // Cached translations of addresses: of no digest, but a guest that changed its tables and flushed
  // nothing can tell what was cached, so a copy that is to go on alike needs them. What backends
  // whose caches nobody can read write is empty. Load after load(); what is no set of translations
  // is SNAP-010.
  virtual void save_translations(ByteWriter&) const {}
  virtual Status load_translations(ByteReader&) { return Done{}; }

  // Drops every cached translation: behaviour from here on does not depend on what was cached.
  virtual void drop_caches() = 0;

  // What an operator should know at the end of a run (instructions nobody implements); usually
  // empty.
  virtual std::string remarks() const = 0;

  // GuestMemory::page_flags() are about to be looked at: what the guest wrote must be marked there.
  virtual void collect_dirty_pages() = 0;
  // The marks in GuestMemory::page_flags() were cleared: writes must set them again.
  virtual void forget_dirty_pages() = 0;

  // Why run() or step() returned kFailed; it will again.
  virtual std::optional<UserError> failure() const = 0;

  // --- Intel PT (caps().traces_pt). Tracing is no guest state: snapshots do not hold it, and the
  // guest cannot tell.

  // From the next instruction on. What the trace's digests depend on besides the guest is returned.
  // Precondition: not tracing.
  virtual Result<ipt::TraceSetup> start_trace(const TraceRequest& request) = 0;
  // Ends one stretch and begins the next, at the current point: afterwards the sink has every byte
  // of the old one, and the next begins with PSB+ (or OVF), so that each can be decoded alone. On
  // hardware: disable the event, read to aux_head, enable it again.
  virtual void cut_trace() = 0;
  // Ends tracing, the last stretch handed over. No effect when not tracing.
  virtual void stop_trace() = 0;
  virtual bool tracing() const = 0;

  // Bytes of state that a digest covers (same content as save(), no caches dropped).
  virtual void digest_state(ByteWriter& out) const = 0;

  // Many lines: registers, mode, last exits. For triple faults and bug reports.
  virtual std::string dump() const = 0;
};

}  // namespace us::hv
