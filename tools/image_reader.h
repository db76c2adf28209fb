// Disk images that a recording left its data in (secondary_reads = "disk"): read again on replay.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "hv/world/thread_support.h"

namespace us::tools {

class ImageReader {
 public:
  // Images by disk index; opened when first read. An empty path: none.
  explicit ImageReader(std::vector<std::string> paths);

  // Errors: REC-003 the image cannot be read there, REC-004 it holds something else than it did.
  Result<Bytes> read(uint8_t device, uint64_t offset, uint64_t length, uint32_t crc);

 private:
  struct Image {
    std::string path;
    hv::Fd fd;
  };
  std::vector<Image> images_;
};

}  // namespace us::tools
