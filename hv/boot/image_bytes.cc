#include "hv/boot/image_bytes.h"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/boot/boot_errors.h"

namespace us::hv {

namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

UserError cannot_read(const std::string& path, const char* role, const std::string& seen) {
  return boot_error("BOOT-001", fmt::format("cannot read {} {}", role, path), seen,
                    "a readable regular file", fmt::format("check the path given as {}", role));
}

}  // namespace

Result<ImageFile> ImageFile::open(const std::string& path, const char* role, uint64_t limit) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return cannot_read(path, role, std::strerror(errno));
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return cannot_read(path, role, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) return cannot_read(path, role, "not a regular file");
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size == 0 || size > limit)
    return boot_error("BOOT-002", fmt::format("{} {} has a size that cannot be right", role, path),
                      fmt::format("{} bytes", size), fmt::format("1 to {} bytes", limit),
                      "give another file, or the machine more memory");
  void* const at = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (at == MAP_FAILED) return cannot_read(path, role, std::strerror(errno));
  return ImageFile(ByteSpan(static_cast<const uint8_t*>(at), size));
}

ImageFile::~ImageFile() {
  if (!bytes_.empty()) ::munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size());
}

}  // namespace us::hv
