#include "tools/image_reader.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

#include "base/crc32c.h"

namespace us::tools {
namespace {

constexpr char kMend[] =
    "put the image back as it was when the recording began, name a copy of it with --image, or "
    "record with secondary_reads = \"log\"";

UserError unreadable(const std::string& path, std::string seen) {
  return {.id = "REC-003",
          .exit_code = ExitCode::kIncompatible,
          .what = "cannot read the disk image " + path + " that the recording left its data in",
          .seen = std::move(seen),
          .needed = "the image as it was when the recording began",
          .mend = kMend};
}

UserError changed(const std::string& path, uint64_t offset, uint64_t length, uint32_t seen,
                  uint32_t needed) {
  return {.id = "REC-004",
          .exit_code = ExitCode::kIncompatible,
          .what = "the disk image " + path + " has changed since it was recorded",
          .seen = fmt::format("CRC-32C {:08x} of {} bytes at {}", seen, length, offset),
          .needed = fmt::format("{:08x}", needed),
          .mend = kMend};
}

}  // namespace

ImageReader::ImageReader(std::vector<std::string> paths) {
  for (std::string& path : paths) images_.push_back({std::move(path), hv::Fd()});
}

Result<Bytes> ImageReader::read(uint8_t device, uint64_t offset, uint64_t length, uint32_t crc) {
  if (device >= images_.size() || images_[device].path.empty())
    return unreadable(fmt::format("of disk {}", device), "no image is named for it");
  Image& image = images_[device];
  if (!image.fd.valid()) image.fd = hv::Fd(::open(image.path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!image.fd.valid()) return unreadable(image.path, std::strerror(errno));
  Bytes data(length);
  for (uint64_t have = 0; have < length;) {
    const ssize_t n = ::pread(image.fd.get(), data.data() + have, length - have,
                              static_cast<off_t>(offset + have));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      return unreadable(image.path, n < 0 ? std::strerror(errno)
                                          : fmt::format("it ends before byte {}", offset + length));
    have += static_cast<uint64_t>(n);
  }
  if (const uint32_t seen = crc32c(data); seen != crc)
    return changed(image.path, offset, length, seen, crc);
  return data;
}

}  // namespace us::tools
