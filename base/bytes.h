// Little-endian encoding into and out of byte buffers. The reader is bounded: a read past the end
// returns zero and sets failed(), so a parser checks once, at a point of its choosing.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace us {

using Bytes = std::vector<uint8_t>;
using ByteSpan = std::span<const uint8_t>;

class ByteWriter {
 public:
  template <class T>
  void put(T value) {
    static_assert(std::is_integral_v<T> || std::is_enum_v<T>);
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof value);
    std::memcpy(bytes_.data() + at, &value, sizeof value);
  }
  void put_bytes(ByteSpan bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  // A trivially copyable struct, byte for byte. Only for types without padding.
  template <class T>
  void put_pod(const T& value) {
    static_assert(std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>);
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof value);
    std::memcpy(bytes_.data() + at, &value, sizeof value);
  }
  // Length (u32) and bytes.
  void put_string(std::string_view text);
  void put_blob(ByteSpan bytes);
  // LEB128: 7 bits a byte, low first; at most 10 bytes.
  void put_varint(uint64_t value);

  size_t size() const { return bytes_.size(); }
  const Bytes& bytes() const { return bytes_; }
  Bytes take() { return std::move(bytes_); }

 private:
  Bytes bytes_;
};

class ByteReader {
 public:
  explicit ByteReader(ByteSpan bytes) : bytes_(bytes) {}

  template <class T>
  T get() {
    static_assert(std::is_integral_v<T> || std::is_enum_v<T>);
    T value{};
    copy(&value, sizeof value);
    return value;
  }
  template <class T>
  void get_pod(T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    copy(&value, sizeof value);
  }
  void get_into(std::span<uint8_t> out) { copy(out.data(), out.size()); }
  // A view into the buffer of exactly n bytes; empty (and failed) when fewer are left.
  ByteSpan get_span(size_t n);
  std::string get_string();  // as put_string
  Bytes get_blob();          // as put_blob
  uint64_t get_varint();     // fails on more than 10 bytes or a value past 64 bits

  bool failed() const { return failed_; }
  void fail() { failed_ = true; }
  size_t position() const { return position_; }
  size_t remaining() const { return bytes_.size() - position_; }
  bool at_end() const { return remaining() == 0; }

 private:
  void copy(void* out, size_t n);

  ByteSpan bytes_;
  size_t position_ = 0;
  bool failed_ = false;
};

}  // namespace us
