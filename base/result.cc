#include "base/result.h"

namespace us {

std::string UserError::text() const {
  std::string out = fmt::format("error[{}]: {}", id, what);
  const auto part = [&out](const char* label, const std::string& body) {
    if (!body.empty()) out += fmt::format("\n  {:<8}{}", label, body);
  };
  part("seen:", seen);
  part("needed:", needed);
  part("mend:", mend);
  return out;
}

}  // namespace us
