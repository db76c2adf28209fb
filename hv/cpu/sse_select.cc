// Finds the table row for a decoded MMX or SSE instruction and fills its op.
#include <algorithm>
#include <array>
#include <vector>

#include "hv/cpu/sse_handlers.h"

namespace us::hv {
namespace sse {
namespace {

// All rows, those of one mnemonic together.
class RowIndex {
 public:
  RowIndex() {
    for (const auto part : kAllRows)
      for (const Row& row : part()) rows_.push_back(&row);
    std::stable_sort(rows_.begin(), rows_.end(),
                     [](const Row* a, const Row* b) { return a->mnemonic < b->mnemonic; });
    for (size_t i = rows_.size(); i-- > 0;)
      first_[rows_[i]->mnemonic] = static_cast<uint16_t>(i + 1);
  }

  std::span<const Row* const> of(ZydisMnemonic mnemonic) const {
    const size_t first = first_[mnemonic];
    if (first == 0) return {};
    size_t end = first;
    while (end < rows_.size() && rows_[end]->mnemonic == mnemonic) ++end;
    return std::span(rows_).subspan(first - 1, end - (first - 1));
  }

 private:
  std::vector<const Row*> rows_;
  std::array<uint16_t, ZYDIS_MNEMONIC_MAX_VALUE + 1> first_{};  // index + 1; 0: none
};

const RowIndex& row_index() {
  static const RowIndex index;
  return index;
}

Kind kind_of(const Insn& in, unsigned i) {
  if (in.is_mem(i)) return Kind::kMem;
  if (in.is_imm(i)) return Kind::kImm;
  if (in.is_xmm(i)) return Kind::kXmm;
  if (in.is_mmx(i)) return Kind::kMmx;
  return in.is_reg(i) && in.is_gpr(i) ? Kind::kGpr : Kind::kNone;
}

const Forms& forms_of(const Row& row, uint64_t imm) {
  return row.by_imm != nullptr ? row.by_imm[imm & row.imm_mask] : row.forms;
}

uint64_t immediate_of(const Insn& in) {
  for (unsigned i = 1; i < in.visible(); ++i)
    if (in.is_imm(i)) return in.imm(i) & 0xff;
  return 0;
}

bool matches(const Row& row, const Insn& in, Kind dst, Kind src) {
  if (row.dst != dst) return false;
  const Forms& forms = forms_of(row, 0);
  const bool source_fits =
      dst == Kind::kMem
          ? row.src == src
          : (src == Kind::kMem ? forms.mem[0] != nullptr : row.src == src && forms.reg != nullptr);
  if (!source_fits || row.width == 0) return source_fits;
  // The width is that of the general register, or of the memory in its place.
  const unsigned which = row.dst == Kind::kGpr || row.dst == Kind::kMem ? 0 : 1;
  return in.size(which) == row.width;
}

uint8_t register_number(const Insn& in, unsigned i, Kind kind) {
  if (kind == Kind::kGpr) return in.number(i);
  return static_cast<uint8_t>(ZydisRegisterGetId(in.reg(i)));
}

void fill(const Insn& in, Op& op, Kind dst, Kind src) {
  if (dst == Kind::kMem) {
    set_memory(op, in, 0);
    op.extra = in.flat() ? kFlatOperand : 0;
  } else {
    op.dst = register_number(in, 0, dst);
  }
  if (src == Kind::kMem) {
    set_memory(op, in, 1);
    op.extra = in.flat() ? kFlatOperand : 0;
  } else if (src == Kind::kXmm || src == Kind::kMmx || src == Kind::kGpr) {
    op.src = register_number(in, 1, src);
  }
  const bool rex_w = in.has(ZYDIS_ATTRIB_HAS_REX) && in.raw.raw.rex.W != 0;
  op.imm = immediate_of(in) | (rex_w ? kImmRexW : 0);
}

Handler off_handler(Unit unit, Mode mode) {
  const bool fpu_off = (mode.bits & Mode::kFpuOff) != 0, off = (mode.bits & Mode::kSseOff) != 0;
  if (unit == Unit::kMmx && fpu_off) return &call_op<mmx_off>;
  if (unit == Unit::kSse && off) return &call_op<sse_off>;
  if (unit == Unit::kBoth && (off || fpu_off)) return &call_op<sse_off>;
  return nullptr;
}

Selection from_row(const Row& row, const Insn& in, Op& op, Kind dst, Kind src) {
  if (const Handler off = off_handler(row.unit, in.mode)) return {.fn = off};
  fill(in, op, dst, src);
  const Forms& forms = forms_of(row, op.imm);
  const bool memory = dst == Kind::kMem || src == Kind::kMem;
  const Handler checked = memory ? forms.checked_mem : forms.checked_reg;
  if ((in.mode.bits & Mode::kSseTraps) != 0 && checked != nullptr) return {.fn = checked};
  if (memory) return {.fn = forms.mem[op.extra & kFlatOperand]};
  return {.fn = forms.reg, .pure = row.unit == Unit::kSse};
}

Selection from_special(const Special& special, const Insn& in, Op& op) {
  if (const Handler off = off_handler(special.unit, in.mode)) return {.fn = off};
  for (unsigned i = 0; i < in.raw.operand_count; ++i) {
    if (in.operands[i].type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    set_memory(op, in, i);
    break;
  }
  if (special.unit != Unit::kAlways && in.is_reg(0) && in.is_reg(1)) {  // MASKMOV
    op.dst = register_number(in, 0, kind_of(in, 0));
    op.src = register_number(in, 1, kind_of(in, 1));
  }
  return {.fn = special.fn, .ends_block = special.ends_block};
}

Selection select(const Insn& in, Op& op, bool mmx) {
  if (in.raw.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return {};
  if (const Special* special = find_special(in.mnemonic()))
    return (special->unit == Unit::kMmx) == mmx ? from_special(*special, in, op) : Selection{};
  const std::span<const Row* const> rows = row_index().of(in.mnemonic());
  if (rows.empty()) return {};
  const Kind dst = kind_of(in, 0), src = kind_of(in, 1);
  for (const Row* row : rows)
    if ((row->unit == Unit::kMmx) == mmx && matches(*row, in, dst, src))
      return from_row(*row, in, op, dst, src);
  return {};
}

}  // namespace
}  // namespace sse

Selection select_sse(const Insn& in, Op& op) { return sse::select(in, op, false); }
Selection select_mmx(const Insn& in, Op& op) { return sse::select(in, op, true); }

}  // namespace us::hv
