// One HTTP POST of JSON, bounded in time and size.
#pragma once

#include <chrono>
#include <string>

#include "base/result.h"

namespace us::replay {

struct HttpEndpoint {
  std::string host;  // name or address, an IPv6 one without brackets
  std::string port;
  bool operator==(const HttpEndpoint&) const = default;
};
std::string to_text(const HttpEndpoint& endpoint);

struct HttpAnswer {
  unsigned status = 0;
  std::string body;
};
constexpr size_t kHttpBodyMax = 1 << 20;

// Resolves (for as long as the host's resolver takes), then connects, posts and reads within
// `timeout`. The error says what failed.
Result<HttpAnswer, std::string> http_post(const HttpEndpoint& to, const std::string& target,
                                          const std::string& body,
                                          std::chrono::milliseconds timeout);

}  // namespace us::replay
