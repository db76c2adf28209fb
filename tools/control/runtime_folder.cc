#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/control/control.h"

namespace us::tools {
namespace {

std::string folder_name() {
  const auto set = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value != nullptr && value[0] == '/' ? value : "";
  };
  if (const std::string own = set("UNDERSTUDY_RUNTIME_DIR"); !own.empty()) return own;
  if (::geteuid() == 0) return "/run/understudy";
  if (const std::string user = set("XDG_RUNTIME_DIR"); !user.empty()) return user + "/understudy";
  return fmt::format("/tmp/understudy-{}", ::geteuid());
}

UserError unusable(const std::string& folder, const std::string& seen) {
  return {.id = "CTL-004",
          .exit_code = ExitCode::kHostCannot,
          .what = "cannot use " + folder + " for control sockets",
          .seen = seen,
          .needed = "a folder of this user's own that nobody else can write to",
          .mend = "remove what is there, or set UNDERSTUDY_RUNTIME_DIR to another folder"};
}

}  // namespace

Result<std::string> runtime_folder() {
  const std::string folder = folder_name();
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
    return unusable(folder, std::strerror(errno));
  // Under /tmp somebody else can have been first.
  struct stat info {};
  if (::lstat(folder.c_str(), &info) != 0) return unusable(folder, std::strerror(errno));
  if (!S_ISDIR(info.st_mode)) return unusable(folder, "it is no folder");
  if (info.st_uid != ::geteuid())
    return unusable(folder, fmt::format("it belongs to the user {}", info.st_uid));
  if ((info.st_mode & 022) != 0)
    return unusable(folder, fmt::format("its mode is {:04o}", info.st_mode & 07777));
  return folder;
}

}  // namespace us::tools
