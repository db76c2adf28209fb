#include "base/bytes.h"

namespace us {

void ByteWriter::put_string(std::string_view text) {
  put(static_cast<uint32_t>(text.size()));
  bytes_.insert(bytes_.end(), text.begin(), text.end());
}

void ByteWriter::put_blob(ByteSpan bytes) {
  put(static_cast<uint32_t>(bytes.size()));
  put_bytes(bytes);
}

void ByteWriter::put_varint(uint64_t value) {
  while (value >= 0x80) {
    bytes_.push_back(static_cast<uint8_t>(value) | 0x80);
    value >>= 7;
  }
  bytes_.push_back(static_cast<uint8_t>(value));
}

ByteSpan ByteReader::get_span(size_t n) {
  if (failed_ || n > remaining()) {
    failed_ = true;
    return {};
  }
  const ByteSpan view = bytes_.subspan(position_, n);
  position_ += n;
  return view;
}

std::string ByteReader::get_string() {
  const ByteSpan view = get_span(get<uint32_t>());
  return {reinterpret_cast<const char*>(view.data()), view.size()};
}

Bytes ByteReader::get_blob() {
  const ByteSpan view = get_span(get<uint32_t>());
  return {view.begin(), view.end()};
}

uint64_t ByteReader::get_varint() {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 70; shift += 7) {
    const uint8_t byte = get<uint8_t>();
    if (failed_) return 0;
    // The tenth byte holds one bit: anything more does not fit 64.
    if (shift == 63 && byte > 1) break;
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) return value;
  }
  failed_ = true;
  return 0;
}

void ByteReader::copy(void* out, size_t n) {
  const ByteSpan view = get_span(n);
  if (view.size() == n && n != 0) {
    std::memcpy(out, view.data(), n);
  } else if (n != 0) {
    std::memset(out, 0, n);
  }
}

}  // namespace us
