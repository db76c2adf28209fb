// Bounded little-endian loads at an offset of an untrusted image, and reading one from a file.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace us::hv {

// Whether [offset, offset + size) lies in an image of `length` bytes; no overflow.
constexpr bool in_bounds(uint64_t offset, uint64_t size, uint64_t length) {
  return offset <= length && size <= length - offset;
}

// The integer at `offset`, or zero where the image is too short (callers check sizes first).
template <class T>
T load_at(ByteSpan image, uint64_t offset) {
  T value{};
  if (in_bounds(offset, sizeof value, image.size()))
    std::memcpy(&value, image.data() + offset, sizeof value);
  return value;
}

// The whole of a regular file of 1 to `limit` bytes. `role` names it in messages ("kernel").
Result<Bytes> read_image_file(const std::string& path, const char* role, uint64_t limit);

}  // namespace us::hv
