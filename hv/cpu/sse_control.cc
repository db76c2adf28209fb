// MXCSR, the careful handlers' bookkeeping, operand addresses, and the instructions without
// operands to compute on: LDMXCSR, STMXCSR, fences, cache hints, MASKMOV.
#include <cstring>

#include "hv/cpu/sse_handlers.h"

namespace us::hv {
namespace {

inline uint32_t host_csr() {
  uint32_t value;
  asm volatile("stmxcsr %0" : "=m"(value) : : "memory");
  return value;
}
inline void set_host_csr(uint32_t value) { asm volatile("ldmxcsr %0" : : "m"(value) : "memory"); }

}  // namespace

void enter_guest_sse(Cpu& c) {
  c.host_mxcsr = host_csr();
  const uint32_t wanted = c.mxcsr | kMxcsrMasks;
  if (wanted != c.host_mxcsr) set_host_csr(wanted);
}

void leave_guest_sse(Cpu& c) {
  const uint32_t now = host_csr();
  c.mxcsr |= now & kMxcsrFlags;
  if (now != c.host_mxcsr) set_host_csr(c.host_mxcsr);
  c.host_mxcsr = 0;
}

uint32_t guest_mxcsr(const Cpu& c) {
  if (c.host_mxcsr == 0) return c.mxcsr;
  return c.mxcsr | (host_csr() & kMxcsrFlags);
}

void set_guest_mxcsr(Cpu& c, uint32_t value) {
  c.mxcsr = value;
  if (c.host_mxcsr != 0) set_host_csr(value | kMxcsrMasks);
  update_mode(c);
}

namespace sse {
namespace {

constexpr uint32_t kPreComputation = 7;  // IE, DE, ZE
constexpr uint32_t kUnderflow = 0x10, kUnderflowMask = kUnderflow << 7, kFlushToZero = 0x8000;

bool tiny_ps(uint32_t bits) { return (bits & 0x7f80'0000) == 0 && (bits & 0x007f'ffff) != 0; }
bool tiny_pd(uint64_t bits) {
  return (bits & 0x7ff0'0000'0000'0000) == 0 && (bits & 0x000f'ffff'ffff'ffff) != 0;
}

bool has_tiny(const Xmm& x, Tiny kind) {
  switch (kind) {
    case Tiny::kNone:
    case Tiny::kByStep: return false;
    case Tiny::kSs: return tiny_ps(x.d[0]);
    case Tiny::kSd: return tiny_pd(x.q[0]);
    case Tiny::kPs: return tiny_ps(x.d[0]) || tiny_ps(x.d[1]) || tiny_ps(x.d[2]) || tiny_ps(x.d[3]);
    case Tiny::kPd: return tiny_pd(x.q[0]) || tiny_pd(x.q[1]);
  }
  return false;
}

uint32_t unmasked_flags(const Cpu& c) { return ~(c.mxcsr >> 7) & kMxcsrFlags; }

// What the flags of a masked computation become when some exceptions are unmasked.
uint32_t settle(const Cpu& c, uint32_t raised, const Xmm& result, Tiny tiny) {
  const uint32_t unmasked = unmasked_flags(c);
  // An exception found before computing keeps the later kinds from being looked for.
  if ((raised & unmasked & kPreComputation) != 0) return raised & kPreComputation;
  // Unmasked, an exact tiny result counts too.
  if ((unmasked & kUnderflow) != 0 && has_tiny(result, tiny)) raised |= kUnderflow;
  return raised;
}

Xmm get_bytes(V v) {
  Xmm x;
  _mm_store_si128(reinterpret_cast<V*>(&x), v);
  return x;
}

}  // namespace

void begin_checked(Cpu& c, const Op& op, Kept& kept) {
  kept.xmm = c.xmm[op.dst & 15];
  kept.mm = c.fpu.reg[op.dst & 7];
  kept.gpr = c.regs[op.dst & 15];
  kept.flag_result = c.flag_result;
  kept.flag_aux = c.flag_aux;
  kept.x87_status = c.fpu.status;
  kept.x87_valid = c.fpu.valid;
  kept.mxcsr = host_csr();
  uint32_t clean = kept.mxcsr & ~kMxcsrFlags;
  // FTZ counts only while underflow is masked. SDM 1 10.2.3.3.
  if ((c.mxcsr & kUnderflowMask) == 0) clean &= ~kFlushToZero;
  set_host_csr(clean);
}

bool step_raised(const Cpu& c, V result, Tiny tiny, bool last, uint32_t& earlier) {
  const uint32_t csr = host_csr();
  const uint32_t raised = settle(c, csr & kMxcsrFlags, get_bytes(result), tiny);
  const bool stop = (raised & unmasked_flags(c)) != 0;
  earlier |= raised;
  set_host_csr((csr & ~kMxcsrFlags) | (stop || last ? earlier : 0));
  return stop;
}

bool end_checked(Cpu& c, const Op& op, const Kept& kept, Tiny tiny) {
  const uint32_t unmasked = unmasked_flags(c);
  uint32_t raised = host_csr() & kMxcsrFlags;
  if (tiny != Tiny::kByStep) raised = settle(c, raised, c.xmm[op.dst & 15], tiny);
  set_host_csr(kept.mxcsr | raised);
  if ((raised & unmasked) == 0) return true;
  c.xmm[op.dst & 15] = kept.xmm;
  c.fpu.reg[op.dst & 7] = kept.mm;
  c.regs[op.dst & 15] = kept.gpr;
  c.flag_result = kept.flag_result;
  c.flag_aux = kept.flag_aux;
  c.fpu.status = kept.x87_status;
  c.fpu.valid = kept.x87_valid;
  return raise(c, (c.cr4 & cr4::kOsxmmexcpt) != 0 ? kSimdError : kInvalidOpcode);
}

const Op* x87_pending_op(Cpu& c, const Op* op) {
  raise(c, kX87Error);
  return leave(c, op);
}

bool mmx_off(Cpu& c, const Op&) {
  return raise(c, (c.cr0 & cr0::kEm) != 0 ? kInvalidOpcode : kDeviceNotAvailable);
}

bool sse_off(Cpu& c, const Op&) {
  const bool undefined = (c.cr0 & cr0::kEm) != 0 || (c.cr4 & cr4::kOsfxsr) == 0;
  return raise(c, undefined ? kInvalidOpcode : kDeviceNotAvailable);
}

namespace {

Address operand_address(Cpu& c, const Op* op, unsigned size, Access access, bool aligned) {
  Address a = (op->extra & kFlatOperand) != 0 ? Address{flat_address(c, op), true}
                                              : general_address_of(c, op, size, access);
  if (a.ok && aligned && (a.linear & 15) != 0) a.ok = raise(c, kGeneralProtection, 0);
  return a;
}

}  // namespace

const uint8_t* load_operand(Cpu& c, const Op* op, unsigned size, bool aligned) {
  const Address a = operand_address(c, op, size, Access::kRead, aligned);
  if (!a.ok) return nullptr;
  if (const uint8_t* at = direct_read(c, a.linear, size)) return at;
  return load_slow(c, a.linear, &c.scratch[0], size) ? c.scratch[0].b : nullptr;
}

Address store_address(Cpu& c, const Op* op, unsigned size, bool aligned) {
  return operand_address(c, op, size, Access::kWrite, aligned);
}

namespace {

// Stores the bytes of `value` whose `mask` bit is set.
// Only the span from the first to the last selected byte is touched, so an all-zero mask never
// faults. SDM 2 MASKMOVDQU leaves both open.
bool store_masked(Cpu& c, const Op& op, const uint8_t* value, unsigned size, unsigned mask) {
  const Address a = store_address(c, &op, size, false);
  if (!a.ok) return false;
  if (mask == 0) return true;
  const unsigned first = static_cast<unsigned>(__builtin_ctz(mask));
  const unsigned last = 31 - static_cast<unsigned>(__builtin_clz(mask));
  if (!probe_write(c, a.linear + first, last - first + 1)) return false;
  for (unsigned i = first; i <= last; ++i) {
    if ((mask >> i & 1) == 0) continue;
    unsigned run = 1;
    while (i + run <= last && (mask >> (i + run) & 1) != 0) ++run;
    if (!store_slow(c, a.linear + i, value + i, run)) return false;
    i += run;
  }
  return true;
}

// SDM 2 LDMXCSR: reserved bits set raise #GP(0) and change nothing.
bool ldmxcsr(Cpu& c, const Op& op) {
  const uint8_t* at = load_operand(c, &op, 4, false);
  if (at == nullptr) return false;
  const uint32_t value = read_host<uint32_t>(at);
  if ((value & ~kMxcsrWritable) != 0) return raise(c, kGeneralProtection, 0);
  set_guest_mxcsr(c, value);
  return true;
}

bool stmxcsr(Cpu& c, const Op& op) {
  const Address a = store_address(c, &op, 4, false);
  return a.ok && store(c, a.linear, guest_mxcsr(c));
}

bool nothing(Cpu&, const Op&) { return true; }

// CLFLUSH faults as a byte load does.
bool touch(Cpu& c, const Op& op) { return load_operand(c, &op, 1, false) != nullptr; }

bool maskmovdqu(Cpu& c, const Op& op) {
  const Xmm value = c.xmm[op.dst];
  const int mask = _mm_movemask_epi8(get_xmm(c, op.src));
  return store_masked(c, op, value.b, 16, static_cast<unsigned>(mask));
}

bool maskmovq(Cpu& c, const Op& op) {
  if (x87_pending(c)) return raise(c, kX87Error);
  const uint64_t value = get_mm(c, op.dst);
  const int mask = _mm_movemask_epi8(from64(get_mm(c, op.src)));
  uint8_t bytes[8];
  std::memcpy(bytes, &value, sizeof bytes);
  if (!store_masked(c, op, bytes, 8, static_cast<unsigned>(mask))) return false;
  enter_mmx(c);
  return true;
}

bool emms(Cpu& c, const Op&) {
  if (x87_pending(c)) return raise(c, kX87Error);
  enter_mmx(c);
  c.fpu.valid = 0;
  return true;
}

}  // namespace

const Special* find_special(ZydisMnemonic m) {
  static constexpr Special kSpecials[] = {
      {ZYDIS_MNEMONIC_LDMXCSR, Unit::kSse, &end_op<ldmxcsr>, true},
      {ZYDIS_MNEMONIC_STMXCSR, Unit::kSse, &call_op<stmxcsr>},
      {ZYDIS_MNEMONIC_MASKMOVDQU, Unit::kSse, &call_op<maskmovdqu>},
      {ZYDIS_MNEMONIC_MASKMOVQ, Unit::kMmx, &call_op<maskmovq>},
      {ZYDIS_MNEMONIC_EMMS, Unit::kMmx, &call_op<emms>},
      {ZYDIS_MNEMONIC_LFENCE, Unit::kAlways, &call_op<nothing>},
      {ZYDIS_MNEMONIC_SFENCE, Unit::kAlways, &call_op<nothing>},
      {ZYDIS_MNEMONIC_MFENCE, Unit::kAlways, &call_op<nothing>},
      {ZYDIS_MNEMONIC_CLFLUSH, Unit::kAlways, &call_op<touch>},
      {ZYDIS_MNEMONIC_CLFLUSHOPT, Unit::kAlways, &call_op<touch>},
      {ZYDIS_MNEMONIC_PREFETCHNTA, Unit::kAlways, &call_op<nothing>},
      {ZYDIS_MNEMONIC_PREFETCHT0, Unit::kAlways, &call_op<nothing>},
      {ZYDIS_MNEMONIC_PREFETCHT1, Unit::kAlways, &call_op<nothing>},
      {ZYDIS_MNEMONIC_PREFETCHT2, Unit::kAlways, &call_op<nothing>},
      {ZYDIS_MNEMONIC_PREFETCHW, Unit::kAlways, &call_op<nothing>},
  };
  for (const Special& s : kSpecials)
    if (s.mnemonic == m) return &s;
  return nullptr;
}

}  // namespace sse
}  // namespace us::hv
