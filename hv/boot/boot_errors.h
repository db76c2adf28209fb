// The user errors of loading; ids are listed in boot.h.
#pragma once

#include <string>

#include "base/result.h"

namespace us::hv {

inline UserError boot_error(const char* id, std::string what, std::string seen = {},
                            std::string needed = {}, std::string mend = {}) {
  return UserError{
      id, ExitCode::kUsage, std::move(what), std::move(seen), std::move(needed), std::move(mend)};
}

}  // namespace us::hv
