// From mnemonics to the privileged instructions' handlers.
#include <array>

#include "hv/cpu/insn.h"
#include "hv/cpu/system_instructions.h"

namespace us::hv {
namespace {

// How operands go into the op.
enum class Form : uint8_t {
  kNone,      // extra: operand size
  kMemory,    // operand 0 in memory; extra: operand size (8 in 64-bit mode)
  kPlace,     // operand 0 in a register (dst) or memory; extra: size of operand 0
  kRegPlace,  // operand 0: register (src); operand 1: register (dst) or memory
  kPlaceReg,  // operand 0: register (dst) or memory; operand 1: register (src)
  kRegister,  // operand 0: register (dst)
  kImmediate,
};

struct Entry {
  ZydisMnemonic mnemonic = ZYDIS_MNEMONIC_INVALID;
  Handler fn = nullptr;
  Form form = Form::kNone;
  bool ends = true;
  uint8_t imm = 0;
};

#define US_M(name) ZYDIS_MNEMONIC_##name
constexpr Entry kEntries[] = {
    {},
    {US_M(LMSW), &end_op<load_machine_status>, Form::kPlace},
    {US_M(SMSW), &call_op<store_machine_status>, Form::kPlace, false},
    {US_M(CLTS), &end_op<clear_task_switched>},
    {US_M(INVLPG), &end_op<invalidate_page>, Form::kMemory},
    {US_M(INVD), &call_op<flush_caches>, Form::kNone, false},
    {US_M(WBINVD), &call_op<flush_caches>, Form::kNone, false},
    {US_M(XGETBV), &call_op<get_xcr>, Form::kNone, false},
    {US_M(XSETBV), &end_op<set_xcr>},
    {US_M(SGDT), &call_op<store_gdt>, Form::kMemory, false},
    {US_M(SIDT), &call_op<store_idt>, Form::kMemory, false},
    {US_M(LGDT), &end_op<load_gdt>, Form::kMemory},
    {US_M(LIDT), &end_op<load_idt>, Form::kMemory},
    {US_M(SLDT), &call_op<store_ldt>, Form::kPlace, false},
    {US_M(STR), &call_op<store_task>, Form::kPlace, false},
    {US_M(LLDT), &end_op<load_ldt_op>, Form::kPlace},
    {US_M(LTR), &end_op<load_task_op>, Form::kPlace},
    {US_M(LAR), &call_op<load_access_rights>, Form::kRegPlace, false},
    {US_M(LSL), &call_op<load_segment_limit>, Form::kRegPlace, false},
    {US_M(VERR), &call_op<verify_read>, Form::kPlace, false},
    {US_M(VERW), &call_op<verify_write>, Form::kPlace, false},
    {US_M(ARPL), &call_op<adjust_rpl>, Form::kPlaceReg, false},
    {US_M(LDS), &call_op<load_far_pointer>, Form::kRegPlace, false, kDs},
    {US_M(LES), &call_op<load_far_pointer>, Form::kRegPlace, false, kEs},
    {US_M(LFS), &call_op<load_far_pointer>, Form::kRegPlace, false, kFs},
    {US_M(LGS), &call_op<load_far_pointer>, Form::kRegPlace, false, kGs},
    {US_M(LSS), &end_op<load_far_pointer>, Form::kRegPlace, true, kSs},
    {US_M(HLT), &step_only_op<halt>},
    {US_M(CLI), &call_op<disable_interrupts>, Form::kNone, false},
    {US_M(STI), &end_op<enable_interrupts>},
    {US_M(STAC), &call_op<set_ac>, Form::kNone, false},
    {US_M(CLAC), &call_op<clear_ac>, Form::kNone, false},
    {US_M(RDTSC), &call_op<read_time>, Form::kNone, false},
    {US_M(RDTSCP), &call_op<read_time_and_aux>, Form::kNone, false},
    {US_M(RDPMC), &end_op<read_counter>},
    {US_M(RDMSR), &call_op<read_msr_op>, Form::kNone, false},
    {US_M(WRMSR), &end_op<write_msr_op>},
    {US_M(CPUID), &call_op<cpuid_op>, Form::kNone, false},
    {US_M(SYSCALL), &end_op<system_call>},
    {US_M(SYSRET), &end_op<system_return>},
    {US_M(SYSENTER), &end_op<system_enter>},
    {US_M(SYSEXIT), &end_op<system_exit>},
    {US_M(SWAPGS), &call_op<swap_gs>, Form::kNone, false},
    {US_M(RDFSBASE), &call_op<read_fs_base>, Form::kRegister, false},
    {US_M(RDGSBASE), &call_op<read_gs_base>, Form::kRegister, false},
    {US_M(WRFSBASE), &call_op<write_fs_base>, Form::kRegister, false},
    {US_M(WRGSBASE), &call_op<write_gs_base>, Form::kRegister, false},
    {US_M(INT), &end_op<interrupt>, Form::kImmediate},
    {US_M(INT3), &end_op<interrupt>, Form::kNone, true, kBreakpointTrap},
    {US_M(INTO), &end_op<overflow_interrupt>},
    {US_M(INT1), &end_op<debug_interrupt>},
    {US_M(IRET), &end_op<interrupt_return>},
    {US_M(IRETD), &end_op<interrupt_return>},
    {US_M(IRETQ), &end_op<interrupt_return>},
    // Known, but not offered.
    {US_M(MONITOR), &end_op<not_there>},
    {US_M(MWAIT), &end_op<not_there>},
    {US_M(MONITORX), &end_op<not_there>},
    {US_M(MWAITX), &end_op<not_there>},
    {US_M(INVPCID), &end_op<not_there>},
    {US_M(INVLPGA), &end_op<not_there>},
    {US_M(VMCALL), &end_op<not_there>},
    {US_M(VMMCALL), &end_op<not_there>},
    {US_M(VMLAUNCH), &end_op<not_there>},
    {US_M(VMRESUME), &end_op<not_there>},
    {US_M(VMXOFF), &end_op<not_there>},
    {US_M(VMXON), &end_op<not_there>},
    {US_M(VMCLEAR), &end_op<not_there>},
    {US_M(VMPTRLD), &end_op<not_there>},
    {US_M(VMPTRST), &end_op<not_there>},
    {US_M(VMREAD), &end_op<not_there>},
    {US_M(VMWRITE), &end_op<not_there>},
    {US_M(VMFUNC), &end_op<not_there>},
    {US_M(VMRUN), &end_op<not_there>},
    {US_M(VMLOAD), &end_op<not_there>},
    {US_M(VMSAVE), &end_op<not_there>},
    {US_M(INVEPT), &end_op<not_there>},
    {US_M(INVVPID), &end_op<not_there>},
    {US_M(STGI), &end_op<not_there>},
    {US_M(CLGI), &end_op<not_there>},
    {US_M(SKINIT), &end_op<not_there>},
    {US_M(ENCLS), &end_op<not_there>},
    {US_M(ENCLU), &end_op<not_there>},
    {US_M(ENCLV), &end_op<not_there>},
    {US_M(RDPKRU), &end_op<not_there>},
    {US_M(WRPKRU), &end_op<not_there>},
    {US_M(XBEGIN), &end_op<not_there>},
    {US_M(XEND), &end_op<not_there>},
    {US_M(XTEST), &end_op<not_there>},
    {US_M(GETSEC), &end_op<not_there>},
    {US_M(RSM), &end_op<not_there>},
    {US_M(UD0), &end_op<not_there>},
    {US_M(UD1), &end_op<not_there>},
    {US_M(UD2), &end_op<not_there>},
};
#undef US_M

// Position in kEntries by mnemonic; 0: not ours.
constexpr auto kIndex = [] {
  std::array<uint8_t, ZYDIS_MNEMONIC_MAX_VALUE + 1> index{};
  for (unsigned i = 1; i < std::size(kEntries); ++i)
    index[kEntries[i].mnemonic] = static_cast<uint8_t>(i);
  return index;
}();

void set_place(Op& op, const Insn& in, unsigned i, unsigned size) {
  op.extra = static_cast<uint8_t>(size);
  if (in.is_mem(i)) {
    set_memory(op, in, i);
    op.extra |= kInMemory;
  } else {
    op.dst = in.number(i);
  }
}

Selection fill(const Entry& entry, const Insn& in, Op& op) {
  op.imm = entry.imm;
  op.extra = static_cast<uint8_t>(in.operand_size());
  switch (entry.form) {
    case Form::kNone: break;
    case Form::kMemory:
      set_memory(op, in, 0);
      op.extra = static_cast<uint8_t>(in.mode.is64() ? 8 : in.operand_size());
      break;
    case Form::kPlace: set_place(op, in, 0, in.size(0)); break;
    case Form::kRegPlace:
      set_place(op, in, 1, in.size(0));
      op.src = in.number(0);
      break;
    case Form::kPlaceReg:
      set_place(op, in, 0, in.size(0));
      op.src = in.number(1);
      break;
    case Form::kRegister:
      op.dst = in.number(0);
      op.extra = static_cast<uint8_t>(in.size(0));
      break;
    case Form::kImmediate: op.imm = in.imm(0) & 0xff; break;
  }
  return {.fn = entry.fn, .ends_block = entry.ends};
}

uint8_t segment_number(ZydisRegister r) {
  switch (r) {
    case ZYDIS_REGISTER_ES: return kEs;
    case ZYDIS_REGISTER_CS: return kCs;
    case ZYDIS_REGISTER_SS: return kSs;
    case ZYDIS_REGISTER_DS: return kDs;
    case ZYDIS_REGISTER_FS: return kFs;
    default: return kGs;
  }
}

uint8_t special_number(const Insn& in, unsigned i) {
  return static_cast<uint8_t>(ZydisRegisterGetId(in.reg(i)));
}

bool has_class(const Insn& in, unsigned i, ZydisRegisterClass wanted) {
  return in.is_reg(i) && in.reg_class(i) == wanted;
}

Selection select_segment_move(const Insn& in, Op& op) {
  if (has_class(in, 0, ZYDIS_REGCLASS_SEGMENT)) {
    set_place(op, in, 1, 2);
    op.src = segment_number(in.reg(0));
    if (op.src == kCs) return {.fn = &end_op<not_there>, .ends_block = true};
    if (op.src == kSs) return {.fn = &end_op<write_stack_segment>, .ends_block = true};
    return {.fn = &call_op<write_segment>};
  }
  set_place(op, in, 0, in.is_mem(0) ? 2 : in.size(0));
  op.src = segment_number(in.reg(1));
  return {.fn = &call_op<read_segment>};
}

// MOV to and from segment, control and debug registers.
Selection select_special_move(const Insn& in, Op& op) {
  if (has_class(in, 0, ZYDIS_REGCLASS_SEGMENT) || has_class(in, 1, ZYDIS_REGCLASS_SEGMENT))
    return select_segment_move(in, op);
  const auto control = ZYDIS_REGCLASS_CONTROL, debug = ZYDIS_REGCLASS_DEBUG;
  if (has_class(in, 0, control) || has_class(in, 0, debug)) {
    op.dst = special_number(in, 0);
    op.src = in.number(1);
    if (has_class(in, 0, debug)) return {.fn = &end_op<write_debug>, .ends_block = true};
    return {.fn = op.dst == 8 ? &step_only_op<write_control> : &end_op<write_control>,
            .ends_block = true};
  }
  if (has_class(in, 1, control) || has_class(in, 1, debug)) {
    op.dst = in.number(0);
    op.src = special_number(in, 1);
    if (has_class(in, 1, debug)) return {.fn = &call_op<read_debug>};
    if (op.src == 8) return {.fn = &step_only_op<read_control>, .ends_block = true};
    return {.fn = &call_op<read_control>};
  }
  return {};
}

Selection select_far(const Insn& in, Op& op) {
  if (in.raw.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR) return {};
  op.extra = static_cast<uint8_t>(in.operand_size());
  if (in.mnemonic() == ZYDIS_MNEMONIC_RET) {
    op.imm = in.visible() > 0 && in.is_imm(0) ? in.imm(0) & 0xffff : 0;
    return {.fn = &end_op<far_return>, .ends_block = true};
  }
  if (in.is_mem(0)) {
    set_memory(op, in, 0);
    op.extra |= kInMemory;
  } else {
    op.imm = in.operands[0].ptr.offset;
    op.disp = in.operands[0].ptr.segment;
  }
  return {.fn = in.mnemonic() == ZYDIS_MNEMONIC_CALL ? &end_op<far_call> : &end_op<far_jump>,
          .ends_block = true};
}

// imm: port; or src 1: port in DX.
Selection select_port(const Insn& in, Op& op, bool out) {
  const unsigned port = out ? 0 : 1;
  if (in.is_imm(port)) {
    op.imm = in.imm(port) & 0xff;
  } else {
    op.src = 1;
  }
  op.extra = static_cast<uint8_t>(in.size(1 - port));
  return {.fn = out ? &step_only_op<port_out> : &step_only_op<port_in>, .ends_block = true};
}

uint8_t segment_of_string(const Insn& in) {
  if (in.has(ZYDIS_ATTRIB_HAS_SEGMENT_FS)) return kFs;
  if (in.has(ZYDIS_ATTRIB_HAS_SEGMENT_GS)) return kGs;
  if (in.mode.is64()) return kDs;
  if (in.has(ZYDIS_ATTRIB_HAS_SEGMENT_CS)) return kCs;
  if (in.has(ZYDIS_ATTRIB_HAS_SEGMENT_SS)) return kSs;
  if (in.has(ZYDIS_ATTRIB_HAS_SEGMENT_ES)) return kEs;
  return kDs;
}

Selection select_string_port(const Insn& in, Op& op, unsigned size, bool out) {
  op.extra = static_cast<uint8_t>(size);
  op.seg = out ? segment_of_string(in) : uint8_t{kEs};
  if (in.address_size() == 2) op.flags |= Op::kAddress16;
  if (in.address_size() == 4) op.flags |= Op::kAddress32;
  if (in.has(ZYDIS_ATTRIB_HAS_REP)) op.flags |= Op::kRep;
  return {.fn = out ? &step_only_op<string_out> : &step_only_op<string_in>, .ends_block = true};
}

}  // namespace

Selection select_system(const Insn& in, Op& op) {
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_MOV: return select_special_move(in, op);
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_RET: return select_far(in, op);
    case ZYDIS_MNEMONIC_IN: return select_port(in, op, false);
    case ZYDIS_MNEMONIC_OUT: return select_port(in, op, true);
    case ZYDIS_MNEMONIC_INSB: return select_string_port(in, op, 1, false);
    case ZYDIS_MNEMONIC_INSW: return select_string_port(in, op, 2, false);
    case ZYDIS_MNEMONIC_INSD: return select_string_port(in, op, 4, false);
    case ZYDIS_MNEMONIC_OUTSB: return select_string_port(in, op, 1, true);
    case ZYDIS_MNEMONIC_OUTSW: return select_string_port(in, op, 2, true);
    case ZYDIS_MNEMONIC_OUTSD: return select_string_port(in, op, 4, true);
    default: break;
  }
  const uint8_t at = kIndex[in.mnemonic()];
  if (at == 0) return {};
  return fill(kEntries[at], in, op);
}

}  // namespace us::hv
