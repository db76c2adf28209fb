// Moves between registers and memory: MOVAPS to MOVNTI, MOVMSK, PINSR, PEXTR.
#include "hv/cpu/mmx_bodies.h"
#include "hv/cpu/sse_handlers.h"

namespace us::hv::sse {
namespace {

// --- Loads and register moves

struct F_Copy : Silent {
  static V f(V s) { return s; }
};
struct F_Low64 : Silent {  // the rest zero
  static V f(V s) { return _mm_move_epi64(s); }
};
struct F_OnlyLow64 : Silent {
  static V f(V, V s) { return _mm_move_epi64(s); }
};
struct F_MergeLow32 : Silent {
  static V f(V d, V s) {
    return _mm_castps_si128(_mm_move_ss(_mm_castsi128_ps(d), _mm_castsi128_ps(s)));
  }
};
struct F_MergeLow64 : Silent {
  static V f(V d, V s) {
    return _mm_castpd_si128(_mm_move_sd(_mm_castsi128_pd(d), _mm_castsi128_pd(s)));
  }
};
struct F_LowToHigh : Silent {
  static V f(V d, V s) { return _mm_unpacklo_epi64(d, s); }
};
struct F_HighToLow : Silent {
  static V f(V d, V s) { return _mm_unpackhi_epi64(s, d); }
};
template <class T>
struct F_FromGpr : Silent {
  static V f(T v) { return from64(v); }
};

US_SSE_INT1(MOVSHDUP, "movshdup")
US_SSE_INT1(MOVSLDUP, "movsldup")
US_SSE_INT1(MOVDDUP, "movddup")

// --- To general registers

template <class T>
struct F_ToGpr : Silent {
  static T f(V s) { return static_cast<T>(low64(s)); }
};
struct F_MOVMSKPS : Silent {
  static uint32_t f(V s) { return static_cast<uint32_t>(_mm_movemask_ps(_mm_castsi128_ps(s))); }
};
struct F_MOVMSKPD : Silent {
  static uint32_t f(V s) { return static_cast<uint32_t>(_mm_movemask_pd(_mm_castsi128_pd(s))); }
};
struct F_PMOVMSKB : Silent {
  static uint32_t f(V s) { return static_cast<uint32_t>(_mm_movemask_epi8(s)); }
};

// --- Elements by number

template <class T>
T element(V s, uint8_t imm) {
  constexpr unsigned kCount = 16 / sizeof(T);
  Xmm x;
  _mm_store_si128(reinterpret_cast<V*>(&x), s);
  return read_host<T>(x.b + (imm & (kCount - 1)) * sizeof(T));
}
template <class T>
struct F_Extract : Silent {
  static T f(V s, uint8_t imm) { return element<T>(s, imm); }
};
// All ones in element imm of those T wide.
template <class T>
V element_mask(uint8_t imm) {
  constexpr unsigned kShift = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
  const V bytes = _mm_set_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const V first = _mm_set1_epi8(static_cast<char>((imm << kShift) & 15));
  const V here = _mm_and_si128(bytes, _mm_set1_epi8(static_cast<char>(16 - sizeof(T))));
  return _mm_cmpeq_epi8(here, first);
}
template <class T>
V broadcast(T value) {
  if constexpr (sizeof(T) == 1) return _mm_set1_epi8(static_cast<char>(value));
  if constexpr (sizeof(T) == 2) return _mm_set1_epi16(static_cast<short>(value));
  if constexpr (sizeof(T) == 4) return _mm_set1_epi32(static_cast<int>(value));
  if constexpr (sizeof(T) == 8) return _mm_set1_epi64x(static_cast<long long>(value));
}
template <class T>
struct F_Insert : Silent {
  static V f(V d, T value, uint8_t imm) {
    const V mask = element_mask<T>(imm);
    return _mm_or_si128(_mm_and_si128(mask, broadcast<T>(value)), _mm_andnot_si128(mask, d));
  }
};

// --- What stores store

template <class T, bool kFromMmx = false>
struct StoreBase {
  using Value = T;
  static constexpr bool kMmx = kFromMmx;
  static void done(Cpu& c) {
    if constexpr (kFromMmx) enter_mmx(c);
  }
};
struct StoreXmm : StoreBase<Xmm> {
  static const Xmm& produce(const Cpu& c, const Op* op) { return c.xmm[op->src]; }
};
template <class T>
struct StoreLow : StoreBase<T> {
  static T produce(const Cpu& c, const Op* op) { return static_cast<T>(c.xmm[op->src].q[0]); }
};
struct StoreHigh64 : StoreBase<uint64_t> {
  static uint64_t produce(const Cpu& c, const Op* op) { return c.xmm[op->src].q[1]; }
};
template <class T>
struct StoreElement : StoreBase<T> {
  static T produce(const Cpu& c, const Op* op) {
    constexpr unsigned kCount = 16 / sizeof(T);
    return read_host<T>(c.xmm[op->src].b + (op->imm & (kCount - 1)) * sizeof(T));
  }
};
template <class T>
struct StoreGpr : StoreBase<T> {
  static T produce(const Cpu& c, const Op* op) { return static_cast<T>(c.regs[op->src]); }
};
template <class T>
struct StoreMmx : StoreBase<T, true> {
  static T produce(const Cpu& c, const Op* op) { return static_cast<T>(get_mm(c, op->src)); }
};

constexpr Forms kLoad128 = forms<X128, Unary<F_Copy>>();
constexpr Forms kLoadAny = forms<X128Any, Unary<F_Copy>>();
constexpr Forms kStore128 = store_forms<StoreXmm, true>();
constexpr Forms kStoreAny = store_forms<StoreXmm>();
constexpr Forms kLoadLow = forms<X64, Binary<F_MergeLow64>>();
constexpr Forms kLoadHigh = forms<X64, Binary<F_LowToHigh>>();
constexpr Forms kHighToLow = forms<X64, Binary<F_HighToLow>>();
constexpr Forms kMoveQ = forms<X64, Unary<F_Low64>>();
// Between registers these merge; from memory the rest becomes zero.
constexpr Forms kMoveSs =
    split_forms(forms<X32, Binary<F_MergeLow32>>(), forms<X32, Unary<F_Copy>>());
constexpr Forms kMoveSd =
    split_forms(forms<X64, Binary<F_MergeLow64>>(), forms<X64, Unary<F_Copy>>());

#define US_LOAD(name, how) \
  { ZYDIS_MNEMONIC_##name, Kind::kXmm, Kind::kXmm, how }
#define US_STORE(name, how) \
  { ZYDIS_MNEMONIC_##name, Kind::kMem, Kind::kXmm, how }

constexpr Forms memory_only(Forms f) {
  f.reg = nullptr;
  return f;
}
constexpr Forms register_only(Forms f) {
  f.mem[0] = f.mem[1] = nullptr;
  return f;
}

constexpr Row kXmmRows[] = {
    US_LOAD(MOVAPS, kLoad128),
    US_STORE(MOVAPS, kStore128),
    US_LOAD(MOVAPD, kLoad128),
    US_STORE(MOVAPD, kStore128),
    US_LOAD(MOVDQA, kLoad128),
    US_STORE(MOVDQA, kStore128),
    US_LOAD(MOVUPS, kLoadAny),
    US_STORE(MOVUPS, kStoreAny),
    US_LOAD(MOVUPD, kLoadAny),
    US_STORE(MOVUPD, kStoreAny),
    US_LOAD(MOVDQU, kLoadAny),
    US_STORE(MOVDQU, kStoreAny),
    US_LOAD(LDDQU, memory_only(kLoadAny)),
    US_LOAD(MOVNTDQA, memory_only(kLoad128)),
    US_STORE(MOVNTPS, kStore128),
    US_STORE(MOVNTPD, kStore128),
    US_STORE(MOVNTDQ, kStore128),
    US_LOAD(MOVSS, kMoveSs),
    US_STORE(MOVSS, store_forms<StoreLow<uint32_t>>()),
    US_LOAD(MOVSD, kMoveSd),
    US_STORE(MOVSD, store_forms<StoreLow<uint64_t>>()),
    US_LOAD(MOVQ, kMoveQ),
    US_STORE(MOVQ, store_forms<StoreLow<uint64_t>>()),
    US_LOAD(MOVLPS, memory_only(kLoadLow)),
    US_STORE(MOVLPS, store_forms<StoreLow<uint64_t>>()),
    US_LOAD(MOVLPD, memory_only(kLoadLow)),
    US_STORE(MOVLPD, store_forms<StoreLow<uint64_t>>()),
    US_LOAD(MOVHPS, memory_only(kLoadHigh)),
    US_STORE(MOVHPS, store_forms<StoreHigh64>()),
    US_LOAD(MOVHPD, memory_only(kLoadHigh)),
    US_STORE(MOVHPD, store_forms<StoreHigh64>()),
    US_LOAD(MOVLHPS, register_only(kLoadHigh)),
    US_LOAD(MOVHLPS, register_only(kHighToLow)),
    US_ROW_XX(MOVSHDUP, X128, Unary),
    US_ROW_XX(MOVSLDUP, X128, Unary),
    US_ROW_XX(MOVDDUP, X64, Unary),
};

constexpr Row gpr_to_xmm(ZydisMnemonic m, Forms f) { return {m, Kind::kXmm, Kind::kGpr, f}; }
constexpr Row xmm_to_gpr(ZydisMnemonic m, Forms f) { return {m, Kind::kGpr, Kind::kXmm, f}; }
constexpr Row xmm_to_mem(ZydisMnemonic m, Forms f) { return {m, Kind::kMem, Kind::kXmm, f}; }

template <class F>
constexpr Forms to_gpr() {
  return register_only(forms<X128, ToGpr<F>>());
}
template <class T>
constexpr Forms extract() {
  return register_only(forms<X128, ToGprImm<F_Extract<T>>>());
}
template <class T>
constexpr Forms insert() {
  return forms<GprSource<T>, BinaryImm<F_Insert<T>>>();
}

constexpr Row kGprRows[] = {
    gpr_to_xmm(ZYDIS_MNEMONIC_MOVD, forms<GprSource<uint32_t>, Unary<F_FromGpr<uint32_t>>>()),
    gpr_to_xmm(ZYDIS_MNEMONIC_MOVQ, forms<GprSource<uint64_t>, Unary<F_FromGpr<uint64_t>>>()),
    xmm_to_gpr(ZYDIS_MNEMONIC_MOVD, to_gpr<F_ToGpr<uint32_t>>()),
    xmm_to_gpr(ZYDIS_MNEMONIC_MOVQ, to_gpr<F_ToGpr<uint64_t>>()),
    xmm_to_mem(ZYDIS_MNEMONIC_MOVD, store_forms<StoreLow<uint32_t>>()),
    xmm_to_gpr(ZYDIS_MNEMONIC_MOVMSKPS, to_gpr<F_MOVMSKPS>()),
    xmm_to_gpr(ZYDIS_MNEMONIC_MOVMSKPD, to_gpr<F_MOVMSKPD>()),
    xmm_to_gpr(ZYDIS_MNEMONIC_PMOVMSKB, to_gpr<F_PMOVMSKB>()),
    gpr_to_xmm(ZYDIS_MNEMONIC_PINSRB, insert<uint8_t>()),
    gpr_to_xmm(ZYDIS_MNEMONIC_PINSRW, insert<uint16_t>()),
    gpr_to_xmm(ZYDIS_MNEMONIC_PINSRD, insert<uint32_t>()),
    gpr_to_xmm(ZYDIS_MNEMONIC_PINSRQ, insert<uint64_t>()),
    xmm_to_gpr(ZYDIS_MNEMONIC_PEXTRB, extract<uint8_t>()),
    xmm_to_gpr(ZYDIS_MNEMONIC_PEXTRW, extract<uint16_t>()),
    xmm_to_gpr(ZYDIS_MNEMONIC_PEXTRD, extract<uint32_t>()),
    xmm_to_gpr(ZYDIS_MNEMONIC_PEXTRQ, extract<uint64_t>()),
    xmm_to_gpr(ZYDIS_MNEMONIC_EXTRACTPS, extract<uint32_t>()),
    xmm_to_mem(ZYDIS_MNEMONIC_PEXTRB, store_forms<StoreElement<uint8_t>>()),
    xmm_to_mem(ZYDIS_MNEMONIC_PEXTRW, store_forms<StoreElement<uint16_t>>()),
    xmm_to_mem(ZYDIS_MNEMONIC_PEXTRD, store_forms<StoreElement<uint32_t>>()),
    xmm_to_mem(ZYDIS_MNEMONIC_PEXTRQ, store_forms<StoreElement<uint64_t>>()),
    xmm_to_mem(ZYDIS_MNEMONIC_EXTRACTPS, store_forms<StoreElement<uint32_t>>()),
    // No SSE state: works whatever CR0 and CR4 say.
    {ZYDIS_MNEMONIC_MOVNTI, Kind::kMem, Kind::kGpr, store_forms<StoreGpr<uint32_t>>(), 4,
     Unit::kAlways},
    {ZYDIS_MNEMONIC_MOVNTI, Kind::kMem, Kind::kGpr, store_forms<StoreGpr<uint64_t>>(), 8,
     Unit::kAlways},
};

// --- MMX

constexpr Row mmx_row(ZydisMnemonic m, Kind dst, Kind src, Forms f) {
  return {m, dst, src, f, 0, Unit::kMmx};
}

constexpr Row kMmxRows[] = {
    mmx_row(ZYDIS_MNEMONIC_MOVQ, Kind::kMmx, Kind::kMmx, forms<M64, MmxUnary<F_Copy>>()),
    mmx_row(ZYDIS_MNEMONIC_MOVQ, Kind::kMem, Kind::kMmx, store_forms<StoreMmx<uint64_t>>()),
    mmx_row(ZYDIS_MNEMONIC_MOVNTQ, Kind::kMem, Kind::kMmx, store_forms<StoreMmx<uint64_t>>()),
    mmx_row(ZYDIS_MNEMONIC_MOVD, Kind::kMmx, Kind::kGpr,
            forms<GprSource<uint32_t>, MmxUnary<F_FromGpr<uint32_t>>>()),
    mmx_row(ZYDIS_MNEMONIC_MOVQ, Kind::kMmx, Kind::kGpr,
            forms<GprSource<uint64_t>, MmxUnary<F_FromGpr<uint64_t>>>()),
    mmx_row(ZYDIS_MNEMONIC_MOVD, Kind::kGpr, Kind::kMmx,
            register_only(forms<M64, MmxToGpr<F_ToGpr<uint32_t>>>())),
    mmx_row(ZYDIS_MNEMONIC_MOVQ, Kind::kGpr, Kind::kMmx,
            register_only(forms<M64, MmxToGpr<F_ToGpr<uint64_t>>>())),
    mmx_row(ZYDIS_MNEMONIC_MOVD, Kind::kMem, Kind::kMmx, store_forms<StoreMmx<uint32_t>>()),
    mmx_row(ZYDIS_MNEMONIC_PMOVMSKB, Kind::kGpr, Kind::kMmx,
            register_only(forms<M64, MmxToGpr<F_PMOVMSKB>>())),
    {ZYDIS_MNEMONIC_MOVQ2DQ, Kind::kXmm, Kind::kMmx,
     register_only(forms<M64, MmxToXmm<F_OnlyLow64>>()), 0, Unit::kBoth},
    {ZYDIS_MNEMONIC_MOVDQ2Q, Kind::kMmx, Kind::kXmm, register_only(forms<X64, MmxUnary<F_Copy>>()),
     0, Unit::kBoth},
};

}  // namespace

std::span<const Row> move_rows() { return kXmmRows; }
std::span<const Row> move_gpr_rows() { return kGprRows; }
std::span<const Row> move_mmx_rows() { return kMmxRows; }

}  // namespace us::hv::sse
