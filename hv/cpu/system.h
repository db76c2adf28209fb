// Shared by the privileged part of the processor: descriptors, event delivery, far transfers,
// system instructions.
#pragma once

#include <cstdint>

#include "hv/cpu/cpu.h"
#include "hv/cpu/handler.h"
#include "hv/cpu/mmu.h"

namespace us::hv {

namespace dr6 {
constexpr uint64_t kBd = 1u << 13, kBs = 1u << 14;
}

// --- mode.cc ------------------------------------------------------------------------------------

// The part of update_mode that CPL and RFLAGS.AC decide; the mode bits stay.
inline void update_bank(Cpu& c) {
  const bool ac = (c.rflags_other & flag::kAc) != 0 && (c.cr4 & cr4::kSmap) != 0;
  const TlbBank bank = c.cpl == 3 ? kBankUser : ac ? kBankSupervisorAc : kBankSupervisor;
  c.dtlb = c.tlb[bank];
  c.itlb = c.itlb_bank[c.cpl == 3 ? 0 : 1];
}

inline bool protected_mode(const Cpu& c) { return (c.cr0 & cr0::kPe) != 0; }
inline unsigned iopl(const Cpu& c) { return (c.rflags_other >> 12) & 3; }

// --- descriptors.cc -----------------------------------------------------------------------------

// A raw descriptor and where it lies. SDM 3A 3.4.5, 6.14.
struct Descriptor {
  uint64_t low = 0, high = 0;  // high: only of 16-byte system descriptors
  uint64_t at = 0;             // linear address

  unsigned type() const { return (low >> 40) & 0xf; }
  bool is_system() const { return ((low >> 44) & 1) == 0; }
  bool is_code() const { return !is_system() && (type() & 8) != 0; }
  bool is_data() const { return !is_system() && (type() & 8) == 0; }
  bool writable_data() const { return is_data() && (type() & 2) != 0; }
  bool readable() const { return is_data() || (is_code() && (type() & 2) != 0); }
  bool conforming() const { return is_code() && (type() & 4) != 0; }
  unsigned dpl() const { return (low >> 45) & 3; }
  bool present() const { return ((low >> 47) & 1) != 0; }
  bool is_long() const { return ((low >> 53) & 1) != 0; }
  bool big() const { return ((low >> 54) & 1) != 0; }
  // Gates.
  uint16_t gate_selector() const { return static_cast<uint16_t>(low >> 16); }
  uint32_t gate_offset() const {
    return static_cast<uint32_t>((low & 0xffff) | ((low >> 32) & 0xffff'0000));
  }
};

constexpr bool is_null(uint16_t selector) { return (selector & 0xfffc) == 0; }
constexpr unsigned rpl_of(uint16_t selector) { return selector & 3; }

// What to raise for a selector outside its table, and the EXT bit to add to every error code.
struct DescriptorFault {
  uint8_t vector = kGeneralProtection;
  uint32_t ext = 0;
};
// Reads the descriptor that `selector` (not null) names; false: fault recorded.
bool read_descriptor(Cpu& c, uint16_t selector, Descriptor& out, DescriptorFault fault = {});
// As above with the upper half of a 16-byte descriptor (long mode system segments and call gates).
bool read_descriptor16(Cpu& c, uint16_t selector, Descriptor& out);
// Reads without faults for VERR and friends; ok false: selector outside its table. Returns false if
// the read itself faulted.
bool read_descriptor_quietly(Cpu& c, uint16_t selector, Descriptor& out, bool& ok);
Segment segment_from(const Descriptor& d, uint16_t selector);
// Sets the accessed bit in memory (and in d) if it is clear; false: fault recorded.
bool mark_accessed(Cpu& c, Descriptor& d);

// A flat code or data segment as SYSCALL and friends make them up.
Segment flat_segment(uint16_t selector, uint16_t access);
constexpr uint16_t kFlatCode64 = 0xa09b, kFlatCode32 = 0xc09b, kFlatData = 0xc093,
                   kFlatDpl3 = 3 << 5;

// --- segments.cc --------------------------------------------------------------------------------

// Linear address of offset in a segment register, with all checks. False: #GP or #SS recorded.
bool segment_address(Cpu& c, Seg seg, uint64_t offset, unsigned size, Access access,
                     uint64_t& linear);
// Checks a stack segment for privilege `cpl`, as loading SS does; `fault.vector` is #GP or #TS.
bool check_stack_segment(Cpu& c, uint16_t selector, unsigned cpl, Descriptor& out,
                         DescriptorFault fault);
// Installs CS; the caller has checked it. RPL becomes `cpl`.
void install_code(Cpu& c, const Descriptor& d, uint16_t selector, unsigned cpl);
// After a return to an outer level: data segments the new level may not use become null.
void drop_inner_segments(Cpu& c);
bool load_ldt(Cpu& c, uint16_t selector);
bool load_task_register(Cpu& c, uint16_t selector);

// --- exceptions.cc ------------------------------------------------------------------------------

enum class EventKind : uint8_t {
  kFault,     // an exception whose instruction is retried: RF is set in the saved flags
  kTrap,      // an exception after its instruction
  kExternal,  // interrupt or NMI
  kSoftware,  // INT n, INT3, INTO: the gate's DPL counts, no EXT bit
};
struct Event {
  uint8_t vector = 0;
  EventKind kind = EventKind::kFault;
  bool has_error = false;
  uint32_t error = 0;
  bool amid_string = false;  // a trap after an element that is not the last: RF is saved

  uint32_t ext() const { return kind == EventKind::kSoftware ? 0 : 1; }
};
// One attempt; false: nothing changed but c.fault, the exception met on the way.
bool deliver_once(Cpu& c, const Event& event, uint64_t return_rip);
// With all that can follow from failing.
void deliver_event(Cpu& c, const Event& event, uint64_t return_rip);

// exceptions_long.cc, exceptions_legacy.cc: the three ways of delivery.
bool deliver_long(Cpu& c, const Event& event, uint64_t return_rip);
bool deliver_protected(Cpu& c, const Event& event, uint64_t return_rip);
bool deliver_real(Cpu& c, const Event& event, uint64_t return_rip);
// The flags to save, and the flags after entry through an interrupt (or trap) gate.
uint64_t saved_flags(const Cpu& c, const Event& event);
void enter_handler_flags(Cpu& c, bool interrupt_gate);
// Stack pointer and segment for privilege `cpl` from a 32- or 16-bit TSS.
bool stack_from_tss(Cpu& c, unsigned cpl, uint32_t ext, uint16_t& ss, uint32_t& esp);
bool stack_from_tss64(Cpu& c, unsigned slot_offset, uint32_t ext, uint64_t& rsp);

// --- Stacks (stack_frame.cc) --------------------------------------------------------------------

// A stack written or read aside, committed by the caller at the end. Widths are bytes per slot.
struct StackFrame {
  uint64_t pointer = 0;  // offset within the segment
  uint64_t base = 0;
  uint64_t mask = ~uint64_t{0};  // width of the stack pointer
  uint32_t limit = ~uint32_t{0};
  bool expand_down = false;
  bool big = true;
  bool checked = false;  // outside 64-bit mode limits count
  TlbBank bank = kBankSupervisor;
  uint32_t error = 0;  // of the #SS raised past the limit
};
// The stack in use now, for explicit accesses at the current privilege.
StackFrame current_stack(const Cpu& c);
// A stack in segment `ss` that is about to be entered at privilege `cpl`.
StackFrame stack_in(const Segment& ss, uint64_t pointer, unsigned cpl);
bool frame_push(Cpu& c, StackFrame& s, uint64_t value, unsigned size);
bool frame_pop(Cpu& c, StackFrame& s, uint64_t& value, unsigned size);
// What the stack pointer register becomes.
uint64_t merged_pointer(uint64_t old, const StackFrame& s);

// --- Returning and entering (system_return.cc) ---------------------------------------------------

// Checks a code segment to return to (RPL is the new privilege). SDM 3A 5.8.2.
bool check_return_code(Cpu& c, uint16_t selector, Descriptor& out);
// The offset must be canonical (64-bit code) or within the segment; false: #GP(0).
bool check_entry_offset(Cpu& c, const Descriptor& code, uint64_t offset);
// A stack segment to return to at privilege `cpl`; a null one (is_null(selector)) only below ring 3
// in 64-bit code.
bool check_return_stack(Cpu& c, uint16_t selector, unsigned cpl, bool to64, Descriptor& out);
void install_stack(Cpu& c, const Descriptor& d, uint16_t selector);

// --- System instructions ------------------------------------------------------------------------

// #GP(0) unless CPL is 0.
inline bool privileged(Cpu& c) { return c.cpl == 0 || raise(c, kGeneralProtection, 0); }

// Op::extra of instructions with a register-or-memory operand: its size, and where it is.
constexpr uint8_t kInMemory = 0x80, kSizeMask = 0x1f;
bool read_operand(Cpu& c, const Op& op, unsigned size, uint64_t& value);
bool write_operand(Cpu& c, const Op& op, unsigned size, uint64_t value);

// Whether IN/OUT of `size` bytes at `port` is allowed here; false: #GP recorded. SDM 1 19.5.
bool io_permitted(Cpu& c, uint16_t port, unsigned size);

}  // namespace us::hv
