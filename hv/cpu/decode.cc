// From bytes to blocks: drives Zydis, asks the families for handlers, fuses compares with jumps,
// and drops the flag work nobody can see.
#include <algorithm>
#include <cstring>
#include <fmt/format.h>

#include "base/check.h"
#include "hv/cpu/code_cache.h"
#include "hv/cpu/control.h"
#include "hv/cpu/handler.h"
#include "hv/cpu/insn.h"

namespace us::hv {
namespace {

constexpr unsigned kMaxInstructions = 48;

struct Decoders {
  ZydisDecoder long64, protected32, protected16, real16;
  Decoders() {
    ZydisDecoderInit(&long64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderInit(&protected32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&protected16, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    ZydisDecoderInit(&real16, ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16);
    // Bits that only later extensions gave a meaning to: an x86-64-v2 part runs the old form.
    for (ZydisDecoder* d : {&long64, &protected32, &protected16, &real16}) {
      for (ZydisDecoderMode mode :
           {ZYDIS_DECODER_MODE_MPX, ZYDIS_DECODER_MODE_CET, ZYDIS_DECODER_MODE_LZCNT,
            ZYDIS_DECODER_MODE_TZCNT, ZYDIS_DECODER_MODE_CLDEMOTE, ZYDIS_DECODER_MODE_WBNOINVD})
        ZydisDecoderEnableMode(d, mode, ZYAN_FALSE);
    }
  }
  const ZydisDecoder& of(Mode mode) const {
    if (mode.is64()) return long64;
    if (mode.bits & Mode::kReal) return real16;
    return mode.is32() ? protected32 : protected16;
  }
};

const Decoders& decoders() {
  static const Decoders instance;
  return instance;
}

// What liveness needs to know of an op.
struct OpInfo {
  Handler flags_dead = nullptr;
  bool reads_flags = true;
  bool writes_all_flags = false;
  bool pure = false;
};

bool sets_undefined_flags_too(const Insn& in) {
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_TEST: return true;
    default: return false;
  }
}

OpInfo info_of(const Insn& in, const Selection& selection) {
  OpInfo info{.flags_dead = selection.fn_flags_dead, .pure = selection.pure};
  const ZydisAccessedFlags* flags = in.raw.cpu_flags;
  if (flags == nullptr) return info;
  constexpr uint32_t kAll = static_cast<uint32_t>(flag::kArithmetic);
  info.reads_flags = (flags->tested & kAll) != 0;
  uint32_t written = flags->modified | flags->set_0 | flags->set_1;
  if (sets_undefined_flags_too(in)) written |= flags->undefined;
  // A shift by CL or by zero leaves the flags alone.
  const bool may_not_write =
      in.mnemonic() == ZYDIS_MNEMONIC_SHL || in.mnemonic() == ZYDIS_MNEMONIC_SHR ||
      in.mnemonic() == ZYDIS_MNEMONIC_SAR || in.mnemonic() == ZYDIS_MNEMONIC_SHLD ||
      in.mnemonic() == ZYDIS_MNEMONIC_SHRD || in.has(ZYDIS_ATTRIB_HAS_REP) ||
      in.has(ZYDIS_ATTRIB_HAS_REPE) || in.has(ZYDIS_ATTRIB_HAS_REPNE);
  info.writes_all_flags = !may_not_write && (written & kAll) == kAll;
  return info;
}

bool no_such_instruction(Cpu& c, const Op&) { return raise(c, kInvalidOpcode); }

bool too_long(Cpu& c, const Op&) { return raise(c, kGeneralProtection, 0); }

// An instruction we know the name of but do not implement: counted, then #UD.
bool not_implemented(Cpu& c, const Op& op) {
  ++c.unknown_instructions;
  const char* name = ZydisMnemonicGetString(static_cast<ZydisMnemonic>(op.imm));
  std::snprintf(c.last_unknown, sizeof c.last_unknown, "%s", name != nullptr ? name : "?");
  return raise(c, kInvalidOpcode);
}

// Everything newer than x86-64-v2 is as absent here as CPUID says.
bool offered(const Insn& in) {
  if (in.raw.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return false;
  switch (in.raw.meta.isa_set) {
    case ZYDIS_ISA_SET_RDRAND:
    case ZYDIS_ISA_SET_RDSEED:
    case ZYDIS_ISA_SET_ADOX_ADCX:
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_SHA: return false;
    default: return true;
  }
}

Selection select(const Insn& in, Op& op) {
  if (!offered(in)) return {.fn = &call_op<no_such_instruction>, .ends_block = true};
  using Selector = Selection (*)(const Insn&, Op&);
  static constexpr Selector kFamilies[] = {select_integer, select_control, select_stack,
                                           select_sse,     select_string,  select_system,
                                           select_x87,     select_mmx};
  for (const Selector family : kFamilies) {
    const Selection selection = family(in, op);
    if (selection.fn != nullptr) return selection;
  }
  op.imm = static_cast<uint64_t>(in.mnemonic());
  return {.fn = &call_op<not_implemented>, .ends_block = true};
}

// Gathers the ops of one block before they are copied into the arena.
class Builder {
 public:
  Builder(Cpu& c, const DecodeRequest& request) : c_(c), request_(request) {
    most_ = c.mode.bits & Mode::kSingle || request.gathered ? 1 : kMaxInstructions;
  }

  // False: the very first instruction needs more bytes.
  bool build() {
    while (!ended_ && instructions_ < most_) {
      if (!add_next()) return false;
    }
    if (!ended_) add_fall_through();
    drop_dead_flags();
    return true;
  }

  Block* finish(CodeCache& cache) {
    Block* block = cache.allocate(count_ + 1);
    std::copy(ops_, ops_ + count_, block->ops);
    new (block->ops + count_) Links{.may_link = may_link_};
    block->op_count = count_;
    block->size = offset_;
    return block;
  }

 private:
  bool add_next() {
    Insn& in = insns_[instructions_ & 1];
    in.mode = c_.mode;
    in.offset = static_cast<uint16_t>(offset_);
    const ZyanStatus status =
        ZydisDecoderDecodeFull(&decoders().of(c_.mode), request_.bytes + offset_,
                               request_.available - offset_, &in.raw, in.operands);
    if (status == ZYDIS_STATUS_NO_MORE_DATA && !request_.gathered) {
      if (instructions_ == 0) return false;
      add_fall_through();
      return true;
    }
    if (!ZYAN_SUCCESS(status)) {
      add_bad(status);
      return true;
    }
    add(in);
    return true;
  }

  void add_bad(ZyanStatus status) {
    Op& op = new_op(1);
    const bool overlong =
        status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG || status == ZYDIS_STATUS_NO_MORE_DATA;
    op.fn = overlong ? &call_op<too_long> : &call_op<no_such_instruction>;
    ended_ = true;
    // The bytes looked at decide the outcome, so a store into them must drop the block.
    offset_ += std::min(request_.available - offset_, 15u);
  }

  void add(const Insn& in) {
    Op op{};
    op.offset = static_cast<uint16_t>(offset_);
    op.length = in.raw.length;
    op.ordinal = static_cast<uint8_t>(instructions_);
    Selection selection = select(in, op);
    const bool conditional_jump = in.raw.meta.category == ZYDIS_CATEGORY_COND_BR;
    Selection fused;
    if (conditional_jump && can_fuse_ &&
        fuse_compare_and_jump(ops_[count_ - 1], insns_[(instructions_ - 1) & 1], in, fused)) {
      Op& pair = ops_[count_ - 1];
      pair.fn = fused.fn;
      pair.length = static_cast<uint8_t>(pair.length + in.raw.length);
      pair.flags |= Op::kFused;
      infos_[count_ - 1] = {};
    } else {
      op.fn = selection.fn;
      infos_[count_] = info_of(in, selection);
      ops_[count_++] = op;
    }
    can_fuse_ = !selection.ends_block && (c_.mode.bits & Mode::kSingle) == 0;
    offset_ += in.raw.length;
    ++instructions_;
    if (selection.ends_block) end(in);
  }

  void end(const Insn& in) {
    ended_ = true;
    // Links may only lead to places in the page of this block's entry.
    const unsigned entry_offset = static_cast<unsigned>(kPageSize) - page_left();
    const auto inside = [&](int64_t from_entry) {
      const int64_t at = static_cast<int64_t>(entry_offset) + from_entry;
      return at >= 0 && at < static_cast<int64_t>(kPageSize);
    };
    if (request_.gathered) return;
    if (inside(direct_target_offset(in))) may_link_ |= 1;
    if (inside(offset_)) may_link_ |= 2;
  }

  void add_fall_through() {
    Op& op = new_op(0);
    op.imm = offset_;
    op.fn = fall_through_handler(c_.mode);
    ended_ = true;
    if (!request_.gathered && offset_ < page_left()) may_link_ |= 2;
  }

  unsigned page_left() const { return request_.gathered ? 0 : request_.available; }

  Op& new_op(uint8_t length) {
    Op& op = ops_[count_++];
    op = Op{};
    op.offset = static_cast<uint16_t>(offset_);
    op.length = length;
    op.ordinal = static_cast<uint8_t>(instructions_);
    return op;
  }

  // Backwards: an op whose flags are all written again before anybody (a reader, or a fault that
  // would save them) can see them uses its cheaper handler.
  void drop_dead_flags() {
    bool live = true;
    for (unsigned i = count_; i-- > 0;) {
      const OpInfo& info = infos_[i];
      if (!live && info.flags_dead != nullptr) ops_[i].fn = info.flags_dead;
      live = info.reads_flags || !info.pure || (live && !info.writes_all_flags);
    }
  }

  Cpu& c_;
  const DecodeRequest& request_;
  Op ops_[CodeCache::kMaxOps];
  OpInfo infos_[CodeCache::kMaxOps];
  Insn insns_[2];
  unsigned count_ = 0, instructions_ = 0, offset_ = 0, most_ = 0;
  uint64_t may_link_ = 0;
  bool ended_ = false, can_fuse_ = false;
};

}  // namespace

Block* decode_block(Cpu& c, CodeCache& cache, const DecodeRequest& request) {
  Builder builder(c, request);
  if (!builder.build()) return nullptr;
  return builder.finish(cache);
}

// --- Insn

bool Insn::is_gpr(unsigned i) const {
  if (!is_reg(i)) return false;
  switch (reg_class(i)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64: return true;
    default: return false;
  }
}

uint8_t Insn::number(unsigned i) const {
  const ZydisRegister r = reg(i);
  const auto id = static_cast<uint8_t>(ZydisRegisterGetId(r));
  if (reg_class(i) != ZYDIS_REGCLASS_GPR8) return id;
  if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
    return static_cast<uint8_t>((r - ZYDIS_REGISTER_AH) * 8 + 1);
  if (r < ZYDIS_REGISTER_AH) return static_cast<uint8_t>((r - ZYDIS_REGISTER_AL) * 8);
  return static_cast<uint8_t>((r - ZYDIS_REGISTER_SPL + 4) * 8);
}

bool Insn::flat() const {
  if (!mode.is64() || raw.address_width != 64) return false;
  for (unsigned i = 0; i < visible(); ++i) {
    if (operands[i].type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    const ZydisRegister segment = operands[i].mem.segment;
    if (segment == ZYDIS_REGISTER_FS || segment == ZYDIS_REGISTER_GS) return false;
  }
  return true;
}

void set_memory(Op& op, const Insn& in, unsigned i) {
  const auto& mem = in.operands[i].mem;
  const auto& raw = in.raw.raw;
  // SIB base 5 without displacement bits means a 32-bit displacement and no base, REX.B or not
  // (SDM 2 table 2-3); with 32-bit addresses the decoder takes R13 for one.
  const bool no_base =
      in.raw.address_width == 32 && raw.modrm.mod == 0 && raw.modrm.rm == 4 && raw.sib.base == 5;
  op.base = op.index = kZero;
  op.scale = 0;
  op.disp = static_cast<int32_t>(mem.disp.value);
  if (mem.base == ZYDIS_REGISTER_RIP || mem.base == ZYDIS_REGISTER_EIP) {
    op.base = kRipBase;
    op.disp += static_cast<int32_t>(in.offset) + in.raw.length;
  } else if (no_base) {
    op.disp = static_cast<int32_t>(raw.disp.value);
  } else if (mem.base != ZYDIS_REGISTER_NONE) {
    op.base = static_cast<uint8_t>(ZydisRegisterGetId(mem.base));
  }
  if (mem.index != ZYDIS_REGISTER_NONE) {
    op.index = static_cast<uint8_t>(ZydisRegisterGetId(mem.index));
    op.scale = static_cast<uint8_t>(mem.scale == 8   ? 3
                                    : mem.scale == 4 ? 2
                                    : mem.scale == 2 ? 1
                                                     : 0);
  }
  switch (mem.segment) {
    case ZYDIS_REGISTER_ES: op.seg = kEs; break;
    case ZYDIS_REGISTER_CS: op.seg = kCs; break;
    case ZYDIS_REGISTER_SS: op.seg = kSs; break;
    case ZYDIS_REGISTER_FS: op.seg = kFs; break;
    case ZYDIS_REGISTER_GS: op.seg = kGs; break;
    default: op.seg = kDs; break;
  }
  if (in.raw.address_width == 32) op.flags |= Op::kAddress32;
  if (in.raw.address_width == 16) op.flags |= Op::kAddress16;
  const bool thread_segment = op.seg == kFs || op.seg == kGs;
  if (in.mode.is64() && in.raw.address_width == 64 && thread_segment) op.flags |= Op::kBased64;
}

}  // namespace us::hv
