#include <charconv>

#include "logchannel/channel/link.h"

namespace us::log {

std::string Endpoint::text() const {
  const bool bare_ipv6 = host.find(':') != std::string::npos;
  return bare_ipv6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

Result<Endpoint> parse_endpoint(const std::string& text, const std::string& where) {
  const UserError wrong{"CHAN-004",
                        ExitCode::kUsage,
                        fmt::format("{} is not understood", where),
                        fmt::format("\"{}\"", text),
                        "HOST:PORT, or [ADDRESS]:PORT for IPv6; ports are 0 to 65535",
                        "for example 192.0.2.7:7077 or [2001:db8::7]:7077"};
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return wrong;
  Endpoint endpoint;
  endpoint.host = text.substr(0, colon);
  const bool bracketed = endpoint.host.front() == '[' && endpoint.host.back() == ']';
  if (bracketed) endpoint.host = endpoint.host.substr(1, endpoint.host.size() - 2);
  const bool colons = endpoint.host.find(':') != std::string::npos;
  const bool odd = endpoint.host.find_first_of("[] \t\n/") != std::string::npos;
  if (endpoint.host.empty() || endpoint.host.size() > 255 || colons != bracketed || odd) {
    return wrong;
  }
  const char* first = text.data() + colon + 1;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(first, last, endpoint.port);
  if (error != std::errc() || end != last || first == last) return wrong;
  return endpoint;
}

}  // namespace us::log
