#include "hv/cpu/translate/code_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"

namespace us::hv {

CodeMemory::CodeMemory() {
  fd_ = memfd_create("translated code", MFD_CLOEXEC);
  US_CHECK(fd_ >= 0 && ftruncate(fd_, kCodeBytes) == 0, "no memory for translated code");
  void* const both = mmap(nullptr, kCodeBytes + kDataBytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  US_CHECK(both != MAP_FAILED, "no address space for translated code");
  executable_ = static_cast<uint8_t*>(both);
  data_ = executable_ + kCodeBytes;
  const void* const code =
      mmap(both, kCodeBytes, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd_, 0);
  US_CHECK(code == both, "the system refuses executable memory");
  void* const writable =
      mmap(nullptr, kCodeBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd_, 0);
  US_CHECK(writable != MAP_FAILED, "no address space for translated code");
  writable_ = static_cast<uint8_t*>(writable);
}

CodeMemory::~CodeMemory() {
  munmap(writable_, kCodeBytes);
  munmap(executable_, kCodeBytes + kDataBytes);
  close(fd_);
}

void* CodeMemory::allocate(size_t bytes) {
  bytes = (bytes + 15) & ~size_t{15};
  if (!has_data(bytes)) return nullptr;
  void* const at = data_ + data_used_;
  data_used_ += bytes;
  return at;
}

void CodeMemory::clear_data() {
  madvise(data_, data_used_, MADV_DONTNEED);
  data_used_ = 0;
}

}  // namespace us::hv
