// Bytes of guests, files and peers for people to read: nothing in them may reach a terminal as it
// is.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"

namespace us::log {

// In quotes, printable ASCII as it is, the rest escaped; "..." after `bytes_max` bytes.
std::string printable(ByteSpan bytes, size_t bytes_max = 64);
std::string printable(std::string_view text, size_t bytes_max = 64);

}  // namespace us::log
