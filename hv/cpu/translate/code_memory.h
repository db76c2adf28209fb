// Memory for translated code: one memfd mapped twice, so that no page is ever both writable and
// executable, and next to the executable view plain data which code reaches relative to RIP.
#pragma once

#include <cstddef>
#include <cstdint>

namespace us::hv {

class CodeMemory {
 public:
  CodeMemory();
  ~CodeMemory();
  CodeMemory(const CodeMemory&) = delete;
  CodeMemory& operator=(const CodeMemory&) = delete;

  static constexpr size_t kCodeBytes = size_t{64} << 20;
  static constexpr size_t kDataBytes = size_t{32} << 20;

  uint8_t* writable() const { return writable_; }
  // Where the byte written at `at` (in the writable view) is executed.
  const uint8_t* executable(const uint8_t* at) const { return executable_ + (at - writable_); }

  // Zero-filled data, aligned to 16 bytes, until clear_data(). Null: there is no more.
  void* allocate(size_t bytes);
  bool has_data(size_t bytes) const { return data_used_ + bytes <= kDataBytes; }
  void clear_data();

 private:
  int fd_ = -1;
  uint8_t* writable_ = nullptr;
  uint8_t* executable_ = nullptr;  // followed by the data
  uint8_t* data_ = nullptr;
  size_t data_used_ = 0;
};

}  // namespace us::hv
