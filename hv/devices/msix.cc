#include "hv/devices/msix.h"

#include "base/check.h"

namespace us::hv {

Msix::Msix(MsiSink& sink, unsigned vectors) : sink_(sink), vectors_(vectors) {
  US_CHECK(vectors >= 1 && vectors <= kVectorsMax);
}

void Msix::set_control(bool enabled, bool function_masked) {
  enabled_ = enabled;
  function_masked_ = function_masked;
  for (unsigned i = 0; i < vectors_; ++i) flush(i);
}

void Msix::signal(unsigned index) {
  if (!enabled_ || index >= vectors_) return;
  pending_ |= 1ull << index;
  flush(index);
}

void Msix::flush(unsigned index) {
  const Entry& entry = table_[index];
  const bool masked = !enabled_ || function_masked_ || (entry.words[3] & 1) != 0;
  if (masked || ((pending_ >> index) & 1) == 0) return;
  pending_ &= ~(1ull << index);
  sink_.signal_msi(entry.words[0] | static_cast<uint64_t>(entry.words[1]) << 32, entry.words[2]);
}

uint32_t Msix::read_word(uint64_t offset) const {
  if (offset < kTableOffset + 16ull * vectors_) return table_[offset / 16].words[offset / 4 % 4];
  if (offset == kPendingOffset) return static_cast<uint32_t>(pending_);
  if (offset == kPendingOffset + 4) return static_cast<uint32_t>(pending_ >> 32);
  return 0;
}

void Msix::write_word(uint64_t offset, uint32_t value) {
  if (offset >= kTableOffset + 16ull * vectors_) return;  // pending bits are read-only
  const auto index = static_cast<unsigned>(offset / 16);
  const unsigned word = offset / 4 % 4;
  table_[index].words[word] = word == 3 ? value & 1 : value;
  if (word == 3) flush(index);
}

// Accesses are whole aligned words or pairs of them; others are undefined (6.8.2).
uint64_t Msix::mmio_read(uint64_t offset, unsigned size) {
  if (size < 4) return (read_word(offset & ~3ull) >> (8 * (offset & 3))) & all_ones(size);
  if ((offset & 3) != 0) return 0;
  uint64_t value = read_word(offset);
  if (size == 8) value |= static_cast<uint64_t>(read_word(offset + 4)) << 32;
  return value;
}

void Msix::mmio_write(uint64_t offset, unsigned size, uint64_t value) {
  if (size < 4 || (offset & 3) != 0) return;
  write_word(offset, static_cast<uint32_t>(value));
  if (size == 8) write_word(offset + 4, static_cast<uint32_t>(value >> 32));
}

void Msix::save(ByteWriter& out) const {
  for (unsigned i = 0; i < vectors_; ++i) {
    for (uint32_t word : table_[i].words) out.put(word);
  }
  out.put(pending_);
  out.put(static_cast<uint8_t>(enabled_));
  out.put(static_cast<uint8_t>(function_masked_));
}

void Msix::load(ByteReader& in) {
  for (unsigned i = 0; i < vectors_; ++i) {
    for (uint32_t& word : table_[i].words) word = in.get<uint32_t>();
  }
  pending_ = in.get<uint64_t>();
  if (vectors_ < 64 && (pending_ >> vectors_) != 0) in.fail();
  enabled_ = in.get<uint8_t>() != 0;
  function_masked_ = in.get<uint8_t>() != 0;
}

}  // namespace us::hv
