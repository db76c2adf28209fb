// The execution context every handler works on: architectural state, translation caches, and the
// protocol by which a handler leaves the chain of blocks.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "hv/core/bus.h"
#include "hv/core/memory.h"
#include "hv/cpu/op.h"
#include "hv/cpu/state.h"

namespace us::ipt {
class PacketWriter;
}

namespace us::hv {

class CodeCache;
struct CodePage;

// Why a handler came back to the run loop.
enum class Exit : uint8_t {
  kContinue,   // rip is set; look up the next block there
  kFault,      // Cpu::fault is to be delivered; rip is the faulting instruction
  kNeedsStep,  // this instruction does something only the stepper may do (I/O, a store into decoded
               // code): nothing of it was done; rip is the instruction
};

struct Fault {
  uint8_t vector = 0;
  bool has_error = false;
  bool software = false;  // INT n, INT3, INTO: pushed RIP is after it, DPL is checked
  uint32_t error = 0;
};

// One software TLB entry. Tags hold the page's virtual address, or kNoTag. host = va + delta.
struct TlbEntry {
  // Equal to no address without its low twelve bits, nor to one without its bits 4 to 11, which is
  // what operands that must be aligned are compared by.
  static constexpr uint64_t kNoTag = 0x10;
  uint64_t read_tag = kNoTag;
  uint64_t write_tag = kNoTag;  // set only for dirty, writable pages without decoded code
  uint64_t delta = 0;
  // Guest physical address of the page. Bit 0: global mapping; bit 1: stores are allowed and D is
  // set (write_tag may still be missing); bit 2: a piece of a large page.
  uint64_t phys_page = 0;
};
struct ItlbEntry {
  uint64_t tag = TlbEntry::kNoTag;
  CodePage* page = nullptr;
  uint64_t phys_page = 0;  // bit 0: global mapping
};

constexpr unsigned kTlbEntries = 512;
constexpr unsigned kItlbEntries = 256;
// One bank per way of seeing memory, so that a privilege change only moves a pointer.
enum TlbBank : uint8_t { kBankUser, kBankSupervisor, kBankSupervisorAc, kBankCount };

// Events that are to be seen by who runs the processor instead of the guest, as virtualisation
// hardware intercepts them; a model of that hardware sets these. Afterwards the bus is asked for
// attention. All off: nothing is changed.
struct Intercepts {
  bool debug = false;   // debug exceptions: their DR6 bits are gathered in debug_hits
  bool faults = false;  // exceptions of instructions are held in Cpu::fault, not delivered
  bool time = false;    // RDTSC and RDTSCP are executed by the stepper
  bool msrs = false;    // so are RDMSR and WRMSR, and all of them go to the bus
  // RF is set and consumed as processors do, also while no breakpoint is armed: who runs this one
  // may look at it at any time.
  bool resume_flag = false;
  uint64_t debug_hits = 0;
  bool fault_held = false;
};

struct Cpu : CpuState {
  Cpu(GuestMemory& memory_in, Bus& bus_in);
  ~Cpu();

  // --- hot, used by handlers
  // ----------------------------------------------------------------------
  TlbEntry* dtlb = nullptr;   // the current bank
  ItlbEntry* itlb = nullptr;  // user or supervisor bank
  // A conditional branch or jump that finds branches >= branch_limit leaves. Other threads store 0
  // to kick.
  std::atomic<uint64_t> branch_limit{~0ull};
  Mode mode;

  Exit exit = Exit::kContinue;
  bool stepping = false;  // the stepper runs: I/O and stores into code are allowed
  Fault fault;
  Block** link_slot = nullptr;  // on kContinue: where the found block may be linked, or null
  Xmm scratch[2];               // where slow 128-bit accesses put their bytes
  uint32_t host_mxcsr = 0;      // not 0 while the guest's MXCSR is loaded, see sse.h
  uint16_t host_flags = 0;      // the flags while translated code runs, see translate/host_flags.h
  const Op* (*enter_translated)(Cpu*, const void*) = nullptr;
  uint32_t translate_at = 0;  // how often a block runs before it is translated

  // --- the world
  // ----------------------------------------------------------------------------------
  GuestMemory& memory;
  Bus& bus;
  std::unique_ptr<CodeCache> code;
  ipt::PacketWriter* trace = nullptr;  // PT model; non-null while Mode::kTrace is set

  // --- translation caches
  // -------------------------------------------------------------------------
  TlbEntry tlb[kBankCount][kTlbEntries];
  ItlbEntry itlb_bank[2][kItlbEntries];
  // So that flushes touch only what is there (tlb.cc): slots that hold non-global pages, and the
  // hashed GiB regions of which pieces of large pages are cached (local, global).
  uint64_t tlb_local[kBankCount][kTlbEntries / 64] = {};
  uint64_t itlb_local[2][kItlbEntries / 64] = {};
  uint64_t large_regions[2] = {};

  // Counted for the exit report: instructions nobody implements, by Zydis mnemonic.
  uint64_t unknown_instructions = 0;
  char last_unknown[48] = {};

  Intercepts intercepts;
};

// Records a fault to deliver. Always returns false, for `return raise(...)`.
inline bool raise(Cpu& c, uint8_t vector) {
  c.fault = {.vector = vector};
  c.exit = Exit::kFault;
  return false;
}
inline bool raise(Cpu& c, uint8_t vector, uint32_t error) {
  c.fault = {.vector = vector, .has_error = true, .error = error};
  c.exit = Exit::kFault;
  return false;
}
// The instruction must be redone by the stepper.
inline bool needs_step(Cpu& c) {
  c.exit = Exit::kNeedsStep;
  return false;
}

// --- mmu.cc
// -----------------------------------------------------------------------------------------

enum class Access : uint8_t { kRead, kWrite, kExecute };

struct Translation {
  bool ok = false;
  bool global = false;
  bool writable = false;  // a store through this mapping would be allowed, and the D bit is set
  uint64_t phys = 0;      // of the byte asked for
};
// Walks the guest's tables for the current mode (4-level, PAE, 32-bit, off), sets A and D bits,
// checks rights for privilege `user`; on failure records #PF with CR2 and error code. SDM
// 3A 4.5-4.7. A hit in a stale TLB entry with too few rights always walks again, so no spurious
// fault is ever delivered.
Translation translate(Cpu& c, uint64_t va, Access access, bool user);
// As translate for reading, but changes nothing and raises nothing (debuggers, dumps).
bool translate_quietly(const Cpu& c, uint64_t va, uint64_t& phys);

// Implicit supervisor accesses (descriptor tables, TSS) whatever the CPL; false: fault recorded.
bool read_system(Cpu& c, uint64_t va, void* out, unsigned size);
bool write_system(Cpu& c, uint64_t va, const void* in, unsigned size);

// Translates an instruction fetch and fills the instruction TLB entry's tag and phys_page (its
// `page` is the code cache's to set). False: fault recorded.
bool fetch_page(Cpu& c, uint64_t linear, uint64_t& phys);
// The linear address of c.rip; false: #GP recorded (not canonical, or past CS's limit).
bool fetch_linear(Cpu& c, uint64_t& linear);

void flush_tlb_all(Cpu& c);  // global entries too
void flush_tlb_nonglobal(Cpu& c);
void flush_tlb_page(Cpu& c, uint64_t va);
// Recomputes mode, dtlb and itlb after anything they depend on changed (CR0, CR4, EFER, CS, SS,
// CPL, RFLAGS.AC, MXCSR masks, tracing).
void update_mode(Cpu& c);
// A page gained decoded code: no bank may keep a direct write to it.
void forbid_direct_writes(Cpu& c, uint64_t phys_page);
// After kPageDirty flags were cleared: every page's next store passes the slow path again.
void drop_write_tags(Cpu& c);

// No cached translation may write without coming through the slow path first, which marks the page
// dirty.
void drop_write_tags(Cpu& c);

// Slow paths of access.h: any size 1-16, crossing pages, I/O, code pages. False: fault or
// needs_step.
bool load_slow(Cpu& c, uint64_t va, void* out, unsigned size);
bool store_slow(Cpu& c, uint64_t va, const void* in, unsigned size);
// Whether a store of `size` bytes at va would succeed, without doing it; false: fault recorded.
bool probe_write(Cpu& c, uint64_t va, unsigned size);

// --- exceptions.cc
// ----------------------------------------------------------------------------------

// Delivers through the IDT (gates, stack switch, IST, error code), handles double and triple faults
// (sets shutdown). `return_rip`: what is pushed. SDM 3A 6.
void deliver(Cpu& c, const Fault& fault, uint64_t return_rip);
// An external interrupt or NMI between instructions.
void deliver_external(Cpu& c, uint8_t vector);

// --- segments.cc
// ------------------------------------------------------------------------------------

// Loads a data or stack segment register with all checks; false: fault recorded. SDM 3A 5.
bool load_segment(Cpu& c, Seg which, uint16_t selector);
void set_cpl(Cpu& c, uint8_t cpl);  // with update_mode

// --- msr.cc, cpuid.cc
// -------------------------------------------------------------------------------

bool read_msr(Cpu& c, uint32_t index, uint64_t& value);  // false: #GP recorded
bool write_msr(Cpu& c, uint32_t index, uint64_t value);
void cpuid(const Cpu& c, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);  // EAX EBX ECX EDX

// --- flags as a whole
// -------------------------------------------------------------------------------

// Writes RFLAGS bits under `mask`; recomputes what depends on them (AC). Never faults.
void write_rflags(Cpu& c, uint64_t value, uint64_t mask);

}  // namespace us::hv
