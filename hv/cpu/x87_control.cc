// Control and environment: FLDCW, FNSTCW, FNSTSW, FNINIT, FNCLEX, FLDENV, FNSTENV, FRSTOR, FNSAVE,
// FFREE, FINCSTP, FDECSTP, FNOP, FWAIT.
#include "hv/cpu/x87_control.h"

#include "hv/cpu/x87_tables.h"

namespace us::hv::x87 {

bool load_range(Cpu& c, uint64_t linear, void* out, unsigned size) {
  auto* at = static_cast<uint8_t*>(out);
  for (unsigned done = 0; done < size; done += 16) {
    const unsigned part = size - done < 16 ? size - done : 16;
    if (!load_slow(c, linear + done, at + done, part)) return false;
  }
  return true;
}

bool store_range(Cpu& c, uint64_t linear, const void* in, unsigned size) {
  const auto* at = static_cast<const uint8_t*>(in);
  for (unsigned done = 0; done < size; done += 16) {
    const unsigned part = size - done < 16 ? size - done : 16;
    if (!probe_write(c, linear + done, part)) return false;
  }
  for (unsigned done = 0; done < size; done += 16) {
    const unsigned part = size - done < 16 ? size - done : 16;
    if (!store_slow(c, linear + done, at + done, part)) return false;
  }
  return true;
}

bool load_bytes(Cpu& c, const Op& op, void* out, unsigned size) {
  uint64_t linear;
  return operand_address(c, op, size, Access::kRead, linear) && load_range(c, linear, out, size);
}

bool store_bytes(Cpu& c, const Op& op, const void* in, unsigned size) {
  uint64_t linear;
  return operand_address(c, op, size, Access::kWrite, linear) && store_range(c, linear, in, size);
}

void set_control(X87State& f, uint16_t value) {
  f.control = static_cast<uint16_t>((value & 0x1f3f) | 0x40);
  refresh_summary(f);
}

void initialize(X87State& f) {
  f.control = 0x37f;
  f.status = 0;
  f.valid = 0;
  f.opcode = 0;
  f.ip = f.dp = 0;
  f.cs = f.ds = 0;
}

namespace {

// --- the tag word: 0 valid, 1 zero, 2 special, 3 empty. SDM 1 8.1.7.

unsigned tag_of(const Reg& r) {
  if (is_zero(r)) return 1;
  const unsigned exponent = r.exponent & kMaxExponent;
  return exponent == 0 || exponent == kMaxExponent || (r.mantissa & kIntegerBit) == 0 ? 2 : 0;
}

uint16_t tag_word(const X87State& f) {
  unsigned tags = 0;
  for (unsigned i = 0; i < 8; ++i) {
    const unsigned tag = ((f.valid >> i) & 1) != 0 ? tag_of(f.reg[i]) : 3;
    tags |= tag << (2 * i);
  }
  return static_cast<uint16_t>(tags);
}

void set_tags(X87State& f, unsigned tags) {
  unsigned valid = 0;
  for (unsigned i = 0; i < 8; ++i) {
    if (((tags >> (2 * i)) & 3) != 3) valid |= 1u << i;
  }
  f.valid = static_cast<uint16_t>(valid);
}

// --- the environment in memory: seven fields of 16 or 32 bits. SDM 1 figures 8-9 to 8-12. In real
// mode the pointers are linear addresses whose upper bits share words with the opcode; FCS and FDS
// being zero, the offsets stand for them.

struct Environment {
  uint32_t field[7];
};

bool wide(const Op& op) { return ((op.extra >> kSizeShift) & 3) != 1; }

Environment environment(const X87State& f, bool is_wide, bool real) {
  Environment e{{f.control, f.status, tag_word(f), static_cast<uint32_t>(f.ip), 0,
                 static_cast<uint32_t>(f.dp), 0}};
  if (real) {
    const uint32_t upper = is_wide ? 0xffff'f000u : 0xf000u;
    e.field[4] = ((e.field[3] >> 4) & upper) | f.opcode;
    e.field[6] = (e.field[5] >> 4) & upper;
    e.field[3] &= 0xffff;
    e.field[5] &= 0xffff;
  } else if (is_wide) {
    e.field[4] = static_cast<uint32_t>(f.opcode) << 16;
  }
  if (is_wide) {  // unused halves read as ones
    for (const unsigned i : {0, 1, 2}) e.field[i] |= 0xffff'0000u;
    if (!real) e.field[6] |= 0xffff'0000u;
  }
  return e;
}

unsigned pack(const Environment& e, bool is_wide, uint8_t* out) {
  const unsigned step = is_wide ? 4 : 2;
  for (unsigned i = 0; i < 7; ++i) std::memcpy(out + i * step, &e.field[i], step);
  return 7 * step;
}

void apply(X87State& f, const uint8_t* in, bool is_wide, bool real) {
  const unsigned step = is_wide ? 4 : 2;
  Environment e{};
  for (unsigned i = 0; i < 7; ++i) std::memcpy(&e.field[i], in + i * step, step);
  set_tags(f, e.field[2]);
  f.status = static_cast<uint16_t>(e.field[1]);
  set_control(f, static_cast<uint16_t>(e.field[0]));
  f.ip = e.field[3];
  f.dp = e.field[5];
  if (real) {
    f.opcode = e.field[4] & 0x7ff;
    f.ip = (e.field[3] & 0xffff) | (static_cast<uint64_t>(e.field[4] & ~0xfffu) << 4);
    f.dp = (e.field[5] & 0xffff) | (static_cast<uint64_t>(e.field[6] & ~0xfffu) << 4);
  } else if (is_wide) {
    f.opcode = (e.field[4] >> 16) & 0x7ff;
  }
}

bool is_real(const Cpu& c) { return (c.mode.bits & Mode::kReal) != 0; }

// Storing the environment masks all exceptions afterwards. SDM 2, FSTENV.
bool store_environment(Cpu& c, const Op& op) {
  uint8_t bytes[28];
  const unsigned size = pack(environment(c.fpu, wide(op), is_real(c)), wide(op), bytes);
  if (!store_bytes(c, op, bytes, size)) return false;
  c.fpu.control |= kAllExceptions;
  refresh_summary(c.fpu);
  return true;
}

bool load_environment(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  uint8_t bytes[28];
  if (!load_bytes(c, op, bytes, wide(op) ? 28 : 14)) return false;
  apply(c.fpu, bytes, wide(op), is_real(c));
  return true;
}

bool save_all(Cpu& c, const Op& op) {
  uint8_t bytes[28 + 80];
  unsigned size = pack(environment(c.fpu, wide(op), is_real(c)), wide(op), bytes);
  for (unsigned i = 0; i < 8; ++i, size += 10) std::memcpy(bytes + size, &st(c.fpu, i), 10);
  if (!store_bytes(c, op, bytes, size)) return false;
  initialize(c.fpu);
  return true;
}

bool restore_all(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  uint8_t bytes[28 + 80];
  unsigned at = wide(op) ? 28 : 14;
  if (!load_bytes(c, op, bytes, at + 80)) return false;
  apply(c.fpu, bytes, wide(op), is_real(c));
  for (unsigned i = 0; i < 8; ++i, at += 10) std::memcpy(&st(c.fpu, i), bytes + at, 10);
  return true;
}

bool load_control(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  uint16_t value;
  if (!load_operand(c, op, value)) return false;
  set_control(c.fpu, value);
  return true;
}

bool store_control(Cpu& c, const Op& op) { return store_operand<uint16_t>(c, op, c.fpu.control); }
bool store_status(Cpu& c, const Op& op) { return store_operand<uint16_t>(c, op, c.fpu.status); }

bool store_status_ax(Cpu& c, const Op&) {
  set_reg<uint16_t>(c, kRax, c.fpu.status);
  return true;
}

bool clear_exceptions(Cpu& c, const Op&) {
  c.fpu.status &= static_cast<uint16_t>(~(kAllExceptions | kStackFault | kEs | kBusy));
  return true;
}

bool initialize_op(Cpu& c, const Op&) {
  initialize(c.fpu);
  return true;
}

// FENI, FDISI and FSETPM of old: no effect.
bool nothing(Cpu&, const Op&) { return true; }

bool no_operation(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  return true;
}

template <int kStep>
bool rotate(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  set_c1(c.fpu, false);
  set_top(c.fpu, c.fpu.top() + static_cast<unsigned>(kStep));
  return true;
}

template <bool kPop>
bool free_register(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  X87State& f = c.fpu;
  set_c1(f, false);
  f.valid = static_cast<uint16_t>(f.valid & ~(1u << number(f, op.src)));
  if (kPop) pop(f);
  return true;
}

constexpr Handler no_instruction = nullptr;

Handler initialization(unsigned rm) {
  switch (rm) {
    case 2: return &call_op<clear_exceptions>;
    case 3: return &call_op<initialize_op>;
    case 0:
    case 1:
    case 4: return &call_op<nothing>;
    default: return no_instruction;
  }
}

}  // namespace

Handler memory_control(unsigned escape, unsigned reg) {
  if (escape == 1) {
    switch (reg) {
      case 4: return &call_op<load_environment>;
      case 5: return &call_op<load_control>;
      case 6: return &call_op<store_environment>;
      case 7: return &call_op<store_control>;
      default: return no_instruction;
    }
  }
  if (escape != 5) return no_instruction;
  switch (reg) {
    case 4: return &call_op<restore_all>;
    case 6: return &call_op<save_all>;
    case 7: return &call_op<store_status>;
    default: return no_instruction;
  }
}

Handler register_control(unsigned escape, unsigned reg, unsigned rm) {
  if (escape == 1 && reg == 2 && rm == 0) return &call_op<no_operation>;
  if (escape == 1 && reg == 6 && rm == 6) return &call_op<rotate<-1>>;
  if (escape == 1 && reg == 6 && rm == 7) return &call_op<rotate<1>>;
  if (escape == 3 && reg == 4) return initialization(rm);
  if (escape == 5 && reg == 0) return &call_op<free_register<false>>;
  if (escape == 7 && reg == 0) return &call_op<free_register<true>>;
  if (escape == 7 && reg == 4 && rm == 0) return &call_op<store_status_ax>;
  return no_instruction;
}

// FWAIT looks at MP and TS, not at EM. SDM 3A 2.5.
bool wait(Cpu& c, const Op&) {
  constexpr uint64_t kBoth = cr0::kMp | cr0::kTs;
  if ((c.cr0 & kBoth) == kBoth) return raise(c, kDeviceNotAvailable);
  return no_pending_exception(c);
}

}  // namespace us::hv::x87
