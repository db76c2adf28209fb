// Guest memory as handlers see it: one compare on the fast path, everything else in mmu.cc.
#pragma once

#include <cstdint>
#include <cstring>

#include "hv/cpu/cpu.h"

namespace us::hv {

#define US_LIKELY(x) __builtin_expect(!!(x), 1)
#define US_UNLIKELY(x) __builtin_expect(!!(x), 0)

// A loaded value, or ok = false with the reason recorded in the Cpu (fault or needs_step).
template <class T>
struct Loaded {
  T value;
  bool ok;
};

inline TlbEntry& tlb_entry(Cpu& c, uint64_t va) { return c.dtlb[(va >> 12) & (kTlbEntries - 1)]; }

template <class T>
inline T read_host(const void* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}
template <class T>
inline void write_host(void* at, T value) {
  std::memcpy(at, &value, sizeof value);
}

inline uint8_t* host_of(const TlbEntry& e, uint64_t va) {
  auto* at = reinterpret_cast<uint8_t*>(va + e.delta);
  if (at == nullptr) __builtin_unreachable();  // spares the caller a second compare
  return at;
}

// The host address of [va, va + size) if one direct access may read (write) it, else null. The tag
// is compared with the page of the LAST byte, so an access that crosses pages never matches.
inline uint8_t* direct_read(Cpu& c, uint64_t va, unsigned size) {
  const TlbEntry& e = tlb_entry(c, va);
  if (US_LIKELY(e.read_tag == ((va + (size - 1)) & ~uint64_t{0xfff}))) return host_of(e, va);
  return nullptr;
}
inline uint8_t* direct_write(Cpu& c, uint64_t va, unsigned size) {
  const TlbEntry& e = tlb_entry(c, va);
  if (US_LIKELY(e.write_tag == ((va + (size - 1)) & ~uint64_t{0xfff}))) return host_of(e, va);
  return nullptr;
}

template <class T>
[[gnu::noinline]] Loaded<T> load_slow_as(Cpu& c, uint64_t va) {
  T value{};
  const bool ok = load_slow(c, va, &value, sizeof value);
  return {value, ok};
}
template <class T>
[[gnu::noinline]] bool store_slow_as(Cpu& c, uint64_t va, T value) {
  return store_slow(c, va, &value, sizeof value);
}

template <class T>
inline Loaded<T> load(Cpu& c, uint64_t va) {
  if (const uint8_t* at = direct_read(c, va, sizeof(T)); US_LIKELY(at != nullptr))
    return {read_host<T>(at), true};
  return load_slow_as<T>(c, va);
}

template <class T>
[[nodiscard]] inline bool store(Cpu& c, uint64_t va, T value) {
  if (uint8_t* at = direct_write(c, va, sizeof(T)); US_LIKELY(at != nullptr)) {
    write_host<T>(at, value);
    return true;
  }
  return store_slow_as<T>(c, va, value);
}

// Read-modify-write, `f` maps the old value to the new one. Faults as a write before anything
// changes. False: nothing was done.
template <class T, class F>
[[gnu::noinline]] bool modify_slow(Cpu& c, uint64_t va, F f) {
  if (!probe_write(c, va, sizeof(T))) return false;
  const Loaded<T> old = load_slow_as<T>(c, va);
  if (!old.ok) return false;
  // In the stepper nothing can fail any more; outside it a store into code or I/O leaves before
  // `f` had an effect, because probe_write already said needs_step.
  return store_slow_as<T>(c, va, f(old.value));
}
template <class T, class F>
[[nodiscard]] inline bool modify(Cpu& c, uint64_t va, F f) {
  if (uint8_t* at = direct_write(c, va, sizeof(T)); US_LIKELY(at != nullptr)) {
    write_host<T>(at, f(read_host<T>(at)));
    return true;
  }
  return modify_slow<T>(c, va, f);
}

// 128 bits: a pointer to 16 readable bytes (guest memory itself, or c.scratch[0]); null on failure.
// No alignment check; SSE handlers that need one call misaligned() first.
[[gnu::noinline]] const Xmm* load128_slow(Cpu& c, uint64_t va);
inline const Xmm* load128(Cpu& c, uint64_t va) {
  if (const uint8_t* at = direct_read(c, va, 16); US_LIKELY(at != nullptr))
    return reinterpret_cast<const Xmm*>(at);
  return load128_slow(c, va);
}
[[gnu::noinline]] bool store128_slow(Cpu& c, uint64_t va, const Xmm& value);
[[nodiscard]] inline bool store128(Cpu& c, uint64_t va, const Xmm& value) {
  if (uint8_t* at = direct_write(c, va, 16); US_LIKELY(at != nullptr)) {
    std::memcpy(at, &value, 16);
    return true;
  }
  return store128_slow(c, va, value);
}

}  // namespace us::hv
