// Writing through file descriptors: what every writer of files must get right. Errors are errno
// values, 0 none: who calls knows what the file is for, and says so.
#pragma once

#include <filesystem>

#include "base/bytes.h"

namespace us {

// Writes all of it. `written`: bytes that went out, also where the rest did not. ENOSPC where the
// kernel takes nothing and gives no reason.
int write_all(int fd, ByteSpan bytes, size_t& written);

// Makes names durable that were given or taken in a folder. The empty path is the current one.
int sync_folder(const std::filesystem::path& folder);

}  // namespace us
