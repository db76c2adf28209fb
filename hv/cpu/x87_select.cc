// Names the handler of every x87 instruction by its place in the opcode map (SDM 2 appendix A.5),
// and those of FWAIT, FXSAVE, FXRSTOR, XSAVE and XRSTOR.
#include "hv/cpu/insn.h"
#include "hv/cpu/x87_control.h"
#include "hv/cpu/x87_tables.h"

namespace us::hv {
namespace {

bool not_available(Cpu& c, const Op&) { return raise(c, kDeviceNotAvailable); }

Handler memory_handler(unsigned escape, unsigned reg) {
  if ((escape & 1) == 0) return x87::memory_arithmetic(escape, reg);
  const Handler move = x87::memory_move(escape, reg);
  return move != nullptr ? move : x87::memory_control(escape, reg);
}

Handler register_handler(unsigned escape, unsigned reg, unsigned rm) {
  if (escape == 1 && reg >= 6) {
    if (const Handler h = x87::transcendental(reg, rm)) return h;
    if (const Handler h = x87::remainder_function(reg, rm)) return h;
    if (reg == 7) return x87::rounding_function(rm);
  }
  for (const auto part : {&x87::register_arithmetic, &x87::register_compare, &x87::register_move,
                          &x87::register_control}) {
    if (const Handler h = part(escape, reg, rm)) return h;
  }
  return nullptr;
}

uint8_t log2_size(const Insn& in) {
  switch (in.operand_size()) {
    case 2: return 1;
    case 8: return 3;
    default: return 2;
  }
}

Selection select_escape(const Insn& in, Op& op) {
  const auto& modrm = in.raw.raw.modrm;
  const unsigned escape = in.raw.opcode & 7u;
  const bool memory = modrm.mod != 3;
  Selection selection;
  selection.fn =
      memory ? memory_handler(escape, modrm.reg) : register_handler(escape, modrm.reg, modrm.rm);
  if (selection.fn == nullptr) return selection;
  if (in.mode.bits & Mode::kFpuOff) return {.fn = &call_op<not_available>};
  op.imm = (escape << 8) | (modrm.mod << 6) | (modrm.reg << 3) | modrm.rm;
  op.src = modrm.rm;
  if (memory) {
    set_memory(op, in, 0);
    for (unsigned i = 0; i < in.visible(); ++i) {
      if (in.is_mem(i)) set_memory(op, in, i);
    }
    op.extra =
        static_cast<uint8_t>((in.flat() ? x87::kFlat : 0) | (log2_size(in) << x87::kSizeShift));
  }
  return selection;
}

struct AreaEntry {
  ZydisMnemonic mnemonic;
  Handler fn;
  bool ends_block, wide;
};
constexpr AreaEntry kAreas[] = {
    {ZYDIS_MNEMONIC_FXSAVE, &call_op<x87::fxsave>, false, false},
    {ZYDIS_MNEMONIC_FXSAVE64, &call_op<x87::fxsave>, false, true},
    {ZYDIS_MNEMONIC_FXRSTOR, &end_op<x87::fxrstor>, true, false},
    {ZYDIS_MNEMONIC_FXRSTOR64, &end_op<x87::fxrstor>, true, true},
    {ZYDIS_MNEMONIC_XSAVE, &call_op<x87::xsave>, false, false},
    {ZYDIS_MNEMONIC_XSAVE64, &call_op<x87::xsave>, false, true},
    {ZYDIS_MNEMONIC_XRSTOR, &end_op<x87::xrstor>, true, false},
    {ZYDIS_MNEMONIC_XRSTOR64, &end_op<x87::xrstor>, true, true},
};

}  // namespace

Selection select_x87(const Insn& in, Op& op) {
  if (in.raw.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT) {
    if (in.raw.opcode >= 0xd8 && in.raw.opcode <= 0xdf) return select_escape(in, op);
    if (in.raw.opcode == 0x9b) return {.fn = &call_op<x87::wait>};
    return {};
  }
  if (in.raw.opcode_map != ZYDIS_OPCODE_MAP_0F || in.raw.opcode != 0xae) return {};
  for (const AreaEntry& entry : kAreas) {
    if (entry.mnemonic != in.mnemonic()) continue;
    set_memory(op, in, 0);
    op.extra =
        static_cast<uint8_t>((in.flat() ? x87::kFlat : 0) | (entry.wide ? x87::kWidePointers : 0));
    return {.fn = entry.fn, .ends_block = entry.ends_block};
  }
  return {};
}

}  // namespace us::hv
