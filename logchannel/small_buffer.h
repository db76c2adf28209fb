// The small, bounded part of a record's body while it is being encoded: no allocation, no
// initialisation.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/check.h"

namespace us::log {

class SmallBuffer {
 public:
  void put_byte(uint8_t byte) {
    reserve(1);
    bytes_[size_++] = byte;
  }
  void put_varint(uint64_t value) {
    reserve(10);
    while (value >= 0x80) {
      bytes_[size_++] = static_cast<uint8_t>(value) | 0x80;
      value >>= 7;
    }
    bytes_[size_++] = static_cast<uint8_t>(value);
  }
  // The low `count` bytes, little-endian.
  void put_fixed(uint64_t value, size_t count) {
    reserve(8);
    std::memcpy(bytes_ + size_, &value, 8);
    size_ += count;
  }
  void put_text(std::string_view text) {
    reserve(text.size());
    std::memcpy(bytes_ + size_, text.data(), text.size());
    size_ += text.size();
  }
  const uint8_t* data() const { return bytes_; }
  size_t size() const { return size_; }

 private:
  // The largest small part (an End record with every field at its longest) is under 160 bytes.
  void reserve(size_t n) const { US_CHECK(size_ + n <= sizeof bytes_, "record header overflow"); }

  size_t size_ = 0;
  uint8_t bytes_[256];
};

}  // namespace us::log
