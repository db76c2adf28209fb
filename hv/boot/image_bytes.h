// Bounded little-endian loads at an offset of an untrusted image, and reading one from a file.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

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

// The whole of a regular file of 1 to `limit` bytes, mapped: an unpacked kernel is mostly symbols
// that nobody loads, so only what is looked at is read. Whoever cuts the file short meanwhile ends
// the process (SIGBUS), as with a program that is being run.
class ImageFile {
 public:
  // `role` names the file in messages ("kernel"). Errors: BOOT-001, BOOT-002.
  static Result<ImageFile> open(const std::string& path, const char* role, uint64_t limit);
  ImageFile() = default;
  ~ImageFile();
  ImageFile(ImageFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  ImageFile& operator=(ImageFile&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  ByteSpan bytes() const { return bytes_; }

 private:
  explicit ImageFile(ByteSpan bytes) : bytes_(bytes) {}
  ByteSpan bytes_;
};

}  // namespace us::hv
