#include "logchannel/printable.h"

#include <algorithm>
#include <fmt/format.h>

namespace us::log {

std::string printable(ByteSpan bytes, size_t bytes_max) {
  std::string out = "\"";
  for (uint8_t byte : bytes.subspan(0, std::min(bytes.size(), bytes_max))) {
    if (byte == '\n') {
      out += "\\n";
    } else if (byte == '\r') {
      out += "\\r";
    } else if (byte == '"' || byte == '\\') {
      out += fmt::format("\\{}", static_cast<char>(byte));
    } else if (byte >= 0x20 && byte < 0x7f) {
      out += static_cast<char>(byte);
    } else {
      out += fmt::format("\\x{:02x}", byte);
    }
  }
  return out + (bytes.size() > bytes_max ? "\"..." : "\"");
}

std::string printable(std::string_view text, size_t bytes_max) {
  return printable(ByteSpan(reinterpret_cast<const uint8_t*>(text.data()), text.size()), bytes_max);
}

}  // namespace us::log
