// MOVS STOS LODS CMPS SCAS, with and without REP, and INS OUTS. A REP instruction runs to its end,
// or to a fault with RCX, RSI and RDI as far as it got (SDM 2B "REP"). What lies in one page on
// both sides goes as one run on host memory, everything else by element.
//
// A repetition of more than kPiece elements is executed in pieces, each of which counts as one
// instruction. They end where RCX is a multiple of kPiece: where a kick may stop the guest depends
// on its state alone, and no two such places have the same number of instructions. With TF set a
// piece is one element, as an exception may suspend a repetition after each (SDM 2B "REP").
#include <algorithm>
#include <cstring>

#include "hv/cpu/debug.h"
#include "hv/cpu/integer.h"
#include "hv/cpu/mmu.h"

namespace us::hv {

// Whether the I/O privilege level or the permission map allows it; false: #GP recorded (system.cc).
bool io_permitted(Cpu& c, uint16_t port, unsigned size);

namespace {

// About a hundred microseconds at most, and more than a program usually moves at once.
constexpr uint64_t kPiece = 1 << 16;  // a power of two

// One of the two strings: where it is and how it is used.
struct Side {
  Seg seg;
  Gpr reg;  // RSI or RDI
  Access access;
};
Side source_of(const Op& op) { return {static_cast<Seg>(op.seg), kRsi, Access::kRead}; }
constexpr Side kDestination = {kEs, kRdi, Access::kWrite};
constexpr Side kCompared = {kEs, kRdi, Access::kRead};

// The registers and the direction of one string instruction at its address size.
class Strings {
 public:
  Strings(Cpu& c, const Op& op, unsigned size)
      : c_(c),
        op_(op),
        size_(size),
        mask_((op.flags & Op::kAddress32)   ? 0xffff'ffff
              : (op.flags & Op::kAddress16) ? 0xffff
                                            : ~uint64_t{0}),
        down_((c.rflags_other & flag::kDf) != 0),
        flat_(c.mode.is64() && (op.flags & Op::kAddress32) == 0),
        repeats_((op.flags & (Op::kRep | Op::kRepne)) != 0),
        stepped_((c.rflags_other & flag::kTf) != 0),
        piece_mask_(stepped_ ? 0 : kPiece - 1) {}

  bool down() const { return down_; }
  bool repeats() const { return repeats_; }
  // How many elements are left to do.
  uint64_t count() const { return repeats_ ? c_.regs[kRcx] & mask_ : 1; }
  // How many of them are left in this piece.
  uint64_t piece() const {
    const uint64_t left = count();
    return left == 0 ? 0 : ((left - 1) & piece_mask_) + 1;
  }

  // Linear address of the element a side points at.
  Address element(Side side) { return linear(side, offset(side), size_); }

  // How many of `n` elements can go as one run: inside one page, no wrap, inside the segment. 0:
  // the next element has to go alone.
  uint64_t fit(Side side, uint64_t n) {
    const uint64_t at = offset(side);
    n = std::min(n, down_ ? at / size_ + 1 : (mask_ - at) / size_);
    if (n == 0) return 0;
    const Address a = linear(side, at, size_);
    if (!a.ok) return 0;
    const uint64_t in_page = a.linear & kPageMask;
    if (in_page + size_ > kPageSize) return 0;
    n = std::min(n, down_ ? in_page / size_ + 1 : (kPageSize - in_page) / size_);
    if (!flat_ && !linear(side, lowest(at, n), static_cast<unsigned>(n * size_)).ok) return 0;
    return n;
  }
  // Host memory of a run of n elements, from its lowest address on; null if there is no direct way,
  // and then the first element's own access says why. Stays good when the other side takes the same
  // place in the TLB.
  uint8_t* host(Side side, uint64_t n) {
    if (uint8_t* at = cached_host(side, n); at != nullptr) return at;
    if (data_watched(c_)) return nullptr;
    const Address first = element(side);
    Place place;
    const bool write = side.access == Access::kWrite;
    if (!first.ok || !resolve(c_, current_bank(c_), first.linear, write, true, place))
      return nullptr;
    return cached_host(side, n);
  }

  void advance(Side side, uint64_t n) {
    const uint64_t bytes = n * size_;
    set(side.reg, down_ ? c_.regs[side.reg] - bytes : c_.regs[side.reg] + bytes);
  }
  // Takes n elements off the count. False: the instruction is left here, to be run again.
  bool finished(uint64_t n, bool more = true) {
    if (!repeats_) return true;
    set(kRcx, c_.regs[kRcx] - n);
    const uint64_t left = count();
    return !more || left == 0 || (left & piece_mask_) != 0 || go_on();
  }

 private:
  uint8_t* cached_host(Side side, uint64_t n) {
    const unsigned bytes = static_cast<unsigned>(n * size_);
    const Address a = linear(side, lowest(offset(side), n), bytes);
    if (!a.ok) return nullptr;
    return side.access == Access::kWrite ? direct_write(c_, a.linear, bytes)
                                         : direct_read(c_, a.linear, bytes);
  }
  uint64_t offset(Side side) const { return c_.regs[side.reg] & mask_; }
  // At the end of a piece that is not the last: leaves if the run loop wants to look.
  bool go_on() {
    ++c_.instructions;
    if (c_.branches < c_.branch_limit.load(std::memory_order_relaxed)) return true;
    c_.exit = Exit::kContinue;
    // An instruction breakpoint has been met before the first piece. SDM 3B 18.3.1.1
    if ((c_.dr7 & 0xff) != 0 || stepped_ || c_.intercepts.resume_flag) c_.rflags_other |= flag::kRf;
    return false;
  }
  uint64_t lowest(uint64_t at, uint64_t n) const { return down_ ? at - (n - 1) * size_ : at; }
  Address linear(Side side, uint64_t at, unsigned size) {
    if (flat_) {
      const bool based = side.seg == kFs || side.seg == kGs;
      return {based ? at + c_.seg[side.seg].base : at, true};
    }
    Op where{};
    where.base = where.index = kZero;
    where.seg = side.seg;
    where.disp = static_cast<int32_t>(static_cast<uint32_t>(at));
    where.flags = op_.flags & (Op::kAddress32 | Op::kAddress16);
    return general_address_of(c_, &where, size, side.access);
  }
  void set(Gpr reg, uint64_t value) {
    if (mask_ == 0xffff) {
      set_reg<uint16_t>(c_, reg, static_cast<uint16_t>(value));
    } else {
      c_.regs[reg] = value & mask_;
    }
  }

  Cpu& c_;
  const Op& op_;
  const unsigned size_;
  const uint64_t mask_;
  const bool down_, flat_, repeats_, stepped_;
  const uint64_t piece_mask_;  // elements of a piece, less one
};

// --- MOVS

// Exactly what element-by-element copying upwards does when the destination overlaps the source
// from above: what was written is read again.
template <class T>
void copy_up_overlapping(uint8_t* to, const uint8_t* from, uint64_t bytes) {
  const auto distance = static_cast<uint64_t>(to - from);
  const uint64_t chunk = distance / sizeof(T) * sizeof(T);
  if (chunk >= 16) {
    for (; bytes > chunk; bytes -= chunk, to += chunk, from += chunk) std::memcpy(to, from, chunk);
    std::memcpy(to, from, bytes);
    return;
  }
  for (uint64_t i = 0; i < bytes; i += sizeof(T)) write_host<T>(to + i, read_host<T>(from + i));
}
template <class T>
void copy_down_overlapping(uint8_t* to, const uint8_t* from, uint64_t bytes) {
  for (uint64_t i = bytes; i > 0; i -= sizeof(T))
    write_host<T>(to + i - sizeof(T), read_host<T>(from + i - sizeof(T)));
}
// Host pages may alias, so overlap is judged by host addresses.
template <class T>
void copy_run(uint8_t* to, const uint8_t* from, uint64_t bytes, bool down) {
  const auto t = reinterpret_cast<uintptr_t>(to), f = reinterpret_cast<uintptr_t>(from);
  if (!down && t > f && t < f + bytes) {
    copy_up_overlapping<T>(to, from, bytes);
  } else if (down && t < f && f < t + bytes) {
    copy_down_overlapping<T>(to, from, bytes);
  } else {
    std::memmove(to, from, bytes);
  }
}

template <class T>
uint64_t move_run(Strings& s, Side source, uint64_t n) {
  n = s.fit(kDestination, s.fit(source, n));
  if (n == 0) return 0;
  const uint8_t* from = s.host(source, n);
  uint8_t* to = from != nullptr ? s.host(kDestination, n) : nullptr;
  if (to == nullptr) return 0;
  copy_run<T>(to, from, n * sizeof(T), s.down());
  return n;
}
template <class T>
bool move_element(Cpu& c, Strings& s, Side source) {
  const Address from = s.element(source);
  if (!from.ok) return false;
  const Loaded<T> value = load<T>(c, from.linear);
  if (!value.ok) return false;
  const Address to = s.element(kDestination);
  return to.ok && store<T>(c, to.linear, value.value);
}
template <class T>
bool movs(Cpu& c, const Op& op) {
  Strings s(c, op, sizeof(T));
  const Side source = source_of(op);
  while (const uint64_t left = s.piece()) {
    uint64_t n = s.repeats() ? move_run<T>(s, source, left) : 0;
    if (n == 0) {
      if (!move_element<T>(c, s, source)) return false;
      n = 1;
    }
    s.advance(source, n);
    s.advance(kDestination, n);
    if (!s.finished(n)) return false;
    if (!s.repeats()) break;
  }
  return true;
}

// --- STOS

template <class T>
void fill_run(uint8_t* to, T value, uint64_t n) {
  if (value == static_cast<T>(static_cast<uint8_t>(value) * (static_cast<T>(~T{0}) / 0xff))) {
    std::memset(to, static_cast<uint8_t>(value), n * sizeof(T));
    return;
  }
  for (uint64_t i = 0; i < n; ++i) write_host<T>(to + i * sizeof(T), value);
}
template <class T>
bool stos(Cpu& c, const Op& op) {
  Strings s(c, op, sizeof(T));
  const T value = get_reg<T>(c, kRax);
  while (const uint64_t left = s.piece()) {
    uint64_t n = s.repeats() ? s.fit(kDestination, left) : 0;
    uint8_t* to = n != 0 ? s.host(kDestination, n) : nullptr;
    if (to != nullptr) {
      fill_run<T>(to, value, n);
    } else {
      const Address a = s.element(kDestination);
      if (!a.ok || !store<T>(c, a.linear, value)) return false;
      n = 1;
    }
    s.advance(kDestination, n);
    if (!s.finished(n)) return false;
    if (!s.repeats()) break;
  }
  return true;
}

// --- LODS

template <class T>
bool lods(Cpu& c, const Op& op) {
  Strings s(c, op, sizeof(T));
  const Side source = source_of(op);
  while (const uint64_t left = s.piece()) {
    // Only the last element of a run stays in the accumulator.
    uint64_t n = s.repeats() ? s.fit(source, left) : 0;
    const uint8_t* from = n != 0 ? s.host(source, n) : nullptr;
    if (from != nullptr) {
      set_reg<T>(c, kRax, read_host<T>(s.down() ? from : from + (n - 1) * sizeof(T)));
    } else {
      const Address a = s.element(source);
      if (!a.ok) return false;
      const Loaded<T> value = load<T>(c, a.linear);
      if (!value.ok) return false;
      set_reg<T>(c, kRax, value.value);
      n = 1;
    }
    s.advance(source, n);
    if (!s.finished(n)) return false;
    if (!s.repeats()) break;
  }
  return true;
}

// --- CMPS and SCAS. Flags are set once, from the last pair compared: a fault leaves them as they
// were before the instruction (SDM 2B "REP").

// Elements of a run up to and including the first pair that stops the repetition (different ones
// for REPE, equal ones for REPNE), or all n. `b` null: compare with `value`.
template <class T>
uint64_t scan_run(const uint8_t* a, const uint8_t* b, T value, uint64_t n, bool down,
                  bool until_equal) {
  uint64_t i = 0;
  if (!down && sizeof(T) == 1 && until_equal && b == nullptr) {
    const void* hit = std::memchr(a, static_cast<uint8_t>(value), n);
    return hit != nullptr ? static_cast<uint64_t>(static_cast<const uint8_t*>(hit) - a) + 1 : n;
  }
  if (!down && !until_equal && b != nullptr) {
    constexpr uint64_t kPerWord = 8 / sizeof(T);
    while (n - i >= kPerWord &&
           read_host<uint64_t>(a + i * sizeof(T)) == read_host<uint64_t>(b + i * sizeof(T)))
      i += kPerWord;
  }
  for (; i < n; ++i) {
    const uint64_t at = (down ? n - 1 - i : i) * sizeof(T);
    const T other = b != nullptr ? read_host<T>(b + at) : value;
    if ((read_host<T>(a + at) == other) == until_equal) return i + 1;
  }
  return n;
}
// The last pair a run of n came to after `done` elements.
inline uint64_t last_of(uint64_t n, uint64_t done, bool down, unsigned size) {
  return (down ? n - done : done - 1) * size;
}

template <class T>
struct Pair {
  T left, right;
};

// One step of CMPS: a run or one element. Returns how many were compared, 0 on failure.
template <class T>
uint64_t compare_some(Cpu& c, Strings& s, Side source, uint64_t left, bool until_equal,
                      Pair<T>& last) {
  const uint64_t n = s.repeats() ? s.fit(kCompared, s.fit(source, left)) : 0;
  const uint8_t* a = n != 0 ? s.host(source, n) : nullptr;
  const uint8_t* b = a != nullptr ? s.host(kCompared, n) : nullptr;
  if (b != nullptr) {
    const uint64_t done = scan_run<T>(a, b, T{0}, n, s.down(), until_equal);
    const uint64_t at = last_of(n, done, s.down(), sizeof(T));
    last = {read_host<T>(a + at), read_host<T>(b + at)};
    return done;
  }
  const Address from = s.element(source);
  if (!from.ok) return 0;
  const Loaded<T> first = load<T>(c, from.linear);
  if (!first.ok) return 0;
  const Address with = s.element(kCompared);
  if (!with.ok) return 0;
  const Loaded<T> second = load<T>(c, with.linear);
  if (!second.ok) return 0;
  last = {first.value, second.value};
  return 1;
}
template <class T>
uint64_t scan_some(Cpu& c, Strings& s, T value, uint64_t left, bool until_equal, Pair<T>& last) {
  const uint64_t n = s.repeats() ? s.fit(kCompared, left) : 0;
  const uint8_t* b = n != 0 ? s.host(kCompared, n) : nullptr;
  if (b != nullptr) {
    const uint64_t done = scan_run<T>(b, nullptr, value, n, s.down(), until_equal);
    last = {value, read_host<T>(b + last_of(n, done, s.down(), sizeof(T)))};
    return done;
  }
  const Address with = s.element(kCompared);
  if (!with.ok) return 0;
  const Loaded<T> element = load<T>(c, with.linear);
  if (!element.ok) return 0;
  last = {value, element.value};
  return 1;
}

template <class T, bool kScan>
bool compare(Cpu& c, const Op& op) {
  Strings s(c, op, sizeof(T));
  const Side source = source_of(op);
  const bool until_equal = (op.flags & Op::kRepne) != 0;
  const T value = get_reg<T>(c, kRax);
  if (s.count() == 0) return true;
  Pair<T> last{};
  for (bool more = true; more;) {
    const uint64_t n = kScan ? scan_some<T>(c, s, value, s.piece(), until_equal, last)
                             : compare_some<T>(c, s, source, s.piece(), until_equal, last);
    if (n == 0) return false;
    if (!kScan) s.advance(source, n);
    s.advance(kCompared, n);
    more = (last.left == last.right) != until_equal && s.count() > n;
    if (!s.finished(n, more)) return false;
  }
  set_flags_sub<T>(c, last.left, last.right, static_cast<T>(last.left - last.right));
  return true;
}

// --- INS, OUTS: only in the stepper, which finishes what it begins

template <class T>
bool ins(Cpu& c, const Op& op) {
  Strings s(c, op, sizeof(T));
  const auto port = static_cast<uint16_t>(c.regs[kRdx]);
  while (s.count() != 0) {
    if (!io_permitted(c, port, sizeof(T))) return false;
    // The port is read only once the store cannot fail.
    const Address a = s.element(kDestination);
    if (!a.ok || !probe_write(c, a.linear, sizeof(T))) return false;
    const auto value = static_cast<T>(c.bus.pio_read(port, sizeof(T)));
    if (!store<T>(c, a.linear, value)) return false;
    s.advance(kDestination, 1);
    if (!s.finished(1)) return false;
    if (!s.repeats()) break;
  }
  return true;
}
template <class T>
bool outs(Cpu& c, const Op& op) {
  Strings s(c, op, sizeof(T));
  const Side source = source_of(op);
  const auto port = static_cast<uint16_t>(c.regs[kRdx]);
  while (s.count() != 0) {
    if (!io_permitted(c, port, sizeof(T))) return false;
    const Address a = s.element(source);
    if (!a.ok) return false;
    const Loaded<T> value = load<T>(c, a.linear);
    if (!value.ok) return false;
    c.bus.pio_write(port, sizeof(T), value.value);
    s.advance(source, 1);
    if (!s.finished(1)) return false;
    if (!s.repeats()) break;
  }
  return true;
}

// --- Selection, by opcode: SSE shares some of the mnemonics

using Sizes = std::array<Handler, 4>;
constexpr Sizes kMovs = {&call_op<movs<uint8_t>>, &call_op<movs<uint16_t>>,
                         &call_op<movs<uint32_t>>, &call_op<movs<uint64_t>>};
constexpr Sizes kStos = {&call_op<stos<uint8_t>>, &call_op<stos<uint16_t>>,
                         &call_op<stos<uint32_t>>, &call_op<stos<uint64_t>>};
constexpr Sizes kLods = {&call_op<lods<uint8_t>>, &call_op<lods<uint16_t>>,
                         &call_op<lods<uint32_t>>, &call_op<lods<uint64_t>>};
constexpr Sizes kCmps = {&call_op<compare<uint8_t, false>>, &call_op<compare<uint16_t, false>>,
                         &call_op<compare<uint32_t, false>>, &call_op<compare<uint64_t, false>>};
constexpr Sizes kScas = {&call_op<compare<uint8_t, true>>, &call_op<compare<uint16_t, true>>,
                         &call_op<compare<uint32_t, true>>, &call_op<compare<uint64_t, true>>};
constexpr Sizes kIns = {&step_only_op<ins<uint8_t>>, &step_only_op<ins<uint16_t>>,
                        &step_only_op<ins<uint32_t>>, &step_only_op<ins<uint32_t>>};
constexpr Sizes kOuts = {&step_only_op<outs<uint8_t>>, &step_only_op<outs<uint16_t>>,
                         &step_only_op<outs<uint32_t>>, &step_only_op<outs<uint32_t>>};

const Sizes* table_of(const Insn& in) {
  if (in.raw.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
      in.raw.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
    return nullptr;
  switch (in.raw.opcode & 0xfe) {
    case 0x6c: return &kIns;
    case 0x6e: return &kOuts;
    case 0xa4: return &kMovs;
    case 0xa6: return &kCmps;
    case 0xaa: return &kStos;
    case 0xac: return &kLods;
    case 0xae: return &kScas;
    default: return nullptr;
  }
}

}  // namespace

Selection select_string(const Insn& in, Op& op) {
  const Sizes* table = table_of(in);
  if (table == nullptr) return {};
  Op source{};
  for (unsigned i = 0; i < in.raw.operand_count; ++i) {
    if (in.operands[i].type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    set_memory(op, in, i);
    if (op.base == kRsi) source = op;
  }
  op.seg = source.seg;  // an override applies to the source alone
  if (in.has(ZYDIS_ATTRIB_HAS_REP) || in.has(ZYDIS_ATTRIB_HAS_REPE)) op.flags |= Op::kRep;
  if (in.has(ZYDIS_ATTRIB_HAS_REPNE)) op.flags |= Op::kRepne;
  const bool bytes = (in.raw.opcode & 1) == 0;
  const bool io = table == &kIns || table == &kOuts;
  return {.fn = (*table)[bytes ? 0 : size_index(in.operand_size())], .ends_block = io};
}

}  // namespace us::hv
