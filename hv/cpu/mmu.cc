// The slow paths of guest memory accesses: TLB misses, page crossings, devices, stores into pages
// with decoded code. Every translation that can fail comes before anything is done.
#include "hv/cpu/mmu.h"

#include <cstring>

#include "hv/cpu/access.h"
#include "hv/cpu/code_cache.h"
#include "hv/cpu/debug.h"

namespace us::hv {
namespace {

// An access split at a page boundary: `first` bytes at a, the rest at b.
struct Span {
  Place a, b;
  unsigned first = 0, rest = 0;
};

bool resolve_span(Cpu& c, TlbBank bank, uint64_t va, unsigned size, bool write, bool may_step,
                  Span& out) {
  const auto left = static_cast<unsigned>(kPageSize - (va & kPageMask));
  out.first = size < left ? size : left;
  out.rest = size - out.first;
  uint64_t next = va + out.first;
  if (!long_mode(c)) next = static_cast<uint32_t>(next);
  // An address that runs out of the canonical range comes before any page fault.
  if (out.rest != 0 && long_mode(c) && !canonical(next)) return raise(c, kGeneralProtection, 0);
  if (!resolve(c, bank, va, write, may_step, out.a)) return false;
  if (out.rest == 0) return true;
  return resolve(c, bank, next, write, may_step, out.b);
}

// Devices see accesses of 1, 2, 4 or 8 bytes; odd sizes come from page crossings and 16-byte
// accesses.
unsigned device_piece(unsigned size) { return size >= 8 ? 8 : size >= 4 ? 4 : size >= 2 ? 2 : 1; }

void device_read(Cpu& c, uint64_t phys, uint8_t* out, unsigned size) {
  while (size != 0) {
    const unsigned piece = device_piece(size);
    const uint64_t value = c.bus.mmio_read(GuestPhys(phys), piece);
    std::memcpy(out, &value, piece);
    phys += piece, out += piece, size -= piece;
  }
}

void device_write(Cpu& c, uint64_t phys, const uint8_t* in, unsigned size) {
  while (size != 0) {
    const unsigned piece = device_piece(size);
    uint64_t value = 0;
    std::memcpy(&value, in, piece);
    c.bus.mmio_write(GuestPhys(phys), piece, value);
    phys += piece, in += piece, size -= piece;
  }
}

void read_place(Cpu& c, const Place& p, uint8_t* out, unsigned size) {
  if (p.host != nullptr) {
    std::memcpy(out, p.host, size);
  } else {
    device_read(c, p.phys, out, size);
  }
}

void write_place(Cpu& c, const Place& p, const uint8_t* in, unsigned size) {
  if (p.host != nullptr) {
    write_ram(c, p.phys, p.host, in, size);
  } else {
    device_write(c, p.phys, in, size);
  }
}

bool is_device(const Span& s) {
  return s.a.host == nullptr || (s.rest != 0 && s.b.host == nullptr);
}

bool hits_code(const Cpu& c, const Span& s) {
  return (s.a.host != nullptr && code_overlaps(c, s.a.phys, s.first)) ||
         (s.rest != 0 && s.b.host != nullptr && code_overlaps(c, s.b.phys, s.rest));
}

bool store_span(Cpu& c, uint64_t va, unsigned size, Span& out) {
  if (!resolve_span(c, current_bank(c), va, size, true, true, out)) return false;
  if (!c.stepping && (is_device(out) || hits_code(c, out))) return needs_step(c);
  return true;
}

uint8_t& flags_of(const Cpu& c, uint64_t phys) {
  return c.memory.page_flags()[c.memory.page_index(GuestPhys(phys))];
}

}  // namespace

bool code_overlaps(const Cpu& c, uint64_t phys, unsigned size) {
  return c.memory.contains(GuestPhys(phys), 1) &&
         (flags_of(c, phys) & GuestMemory::kPageHasCode) != 0 && c.code->overlaps(phys, size);
}

void write_ram(Cpu& c, uint64_t phys, uint8_t* host, const void* in, unsigned size) {
  uint8_t& flags = flags_of(c, phys);
  flags |= GuestMemory::kPageDirty;
  std::memcpy(host, in, size);
  if ((flags & GuestMemory::kPageHasCode) == 0 || !c.code->overlaps(phys, size)) return;
  c.code->written(phys, size);
  // A page whose code is all gone is plain data again: its next store may go direct.
  const CodePage* page = c.code->page_of(phys);
  if (page->blocks == nullptr && page->crossing == nullptr)
    flags &= static_cast<uint8_t>(~GuestMemory::kPageHasCode);
}

bool load_slow(Cpu& c, uint64_t va, void* out, unsigned size) {
  Span s;
  if (!resolve_span(c, current_bank(c), va, size, false, true, s)) return false;
  if (is_device(s) && !c.stepping) return needs_step(c);
  if ((c.dr7 & 0xff) != 0) watch_data(c, va, size, false);
  auto* bytes = static_cast<uint8_t*>(out);
  read_place(c, s.a, bytes, s.first);
  if (s.rest != 0) read_place(c, s.b, bytes + s.first, s.rest);
  return true;
}

bool store_slow(Cpu& c, uint64_t va, const void* in, unsigned size) {
  Span s;
  if (!store_span(c, va, size, s)) return false;
  if ((c.dr7 & 0xff) != 0) watch_data(c, va, size, true);
  const auto* bytes = static_cast<const uint8_t*>(in);
  write_place(c, s.a, bytes, s.first);
  if (s.rest != 0) write_place(c, s.b, bytes + s.first, s.rest);
  return true;
}

bool probe_write(Cpu& c, uint64_t va, unsigned size) {
  Span s;
  return store_span(c, va, size, s);
}

// Accesses of the processor itself never reach devices: there is no table one could keep there.
bool read_through(Cpu& c, TlbBank bank, uint64_t va, void* out, unsigned size) {
  Span s;
  if (!resolve_span(c, bank, va, size, false, false, s)) return false;
  std::memset(out, 0xff, size);
  auto* bytes = static_cast<uint8_t*>(out);
  if (s.a.host != nullptr) std::memcpy(bytes, s.a.host, s.first);
  if (s.rest != 0 && s.b.host != nullptr) std::memcpy(bytes + s.first, s.b.host, s.rest);
  return true;
}

bool write_through(Cpu& c, TlbBank bank, uint64_t va, const void* in, unsigned size) {
  Span s;
  if (!resolve_span(c, bank, va, size, true, false, s)) return false;
  const auto* bytes = static_cast<const uint8_t*>(in);
  if (s.a.host != nullptr) write_ram(c, s.a.phys, s.a.host, bytes, s.first);
  if (s.rest != 0 && s.b.host != nullptr) write_ram(c, s.b.phys, s.b.host, bytes + s.first, s.rest);
  return true;
}

// Implicit accesses never enjoy RFLAGS.AC. SDM 3A 4.6.1.
bool read_system(Cpu& c, uint64_t va, void* out, unsigned size) {
  return read_through(c, kBankSupervisor, va, out, size);
}
bool write_system(Cpu& c, uint64_t va, const void* in, unsigned size) {
  return write_through(c, kBankSupervisor, va, in, size);
}

}  // namespace us::hv
