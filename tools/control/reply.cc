#include "tools/control/reply.h"

#include <charconv>

namespace us::tools {
namespace {

constexpr std::string_view kSuffix = ".sock";

std::string text_at(const nlohmann::json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

}  // namespace

std::string to_line(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

nlohmann::json error_reply(const UserError& error) {
  return {{"error",
           {{"id", error.id},
            {"exit_code", static_cast<int>(error.exit_code)},
            {"what", error.what},
            {"seen", error.seen},
            {"needed", error.needed},
            {"mend", error.mend}}}};
}

std::optional<UserError> error_in(const nlohmann::json& reply) {
  if (!reply.is_object() || !reply.contains("error")) return std::nullopt;
  const nlohmann::json& error = reply["error"];
  const auto code = error.is_object() ? error.find("exit_code") : error.end();
  if (!error.is_object() || text_at(error, "id").empty() || code == error.end() ||
      !code->is_number_integer()) {
    return UserError{.id = "CTL-002",
                     .exit_code = ExitCode::kHostCannot,
                     .what = "the VM's process answered in a way not understood",
                     .seen = to_line(reply).substr(0, 200),
                     .needed = "a reply of this release",
                     .mend = "use the understudy that runs the VM"};
  }
  const int number = code->get<int>();
  const bool known = number >= 0 && number <= static_cast<int>(ExitCode::kGuestFailed);
  return UserError{.id = text_at(error, "id"),
                   .exit_code = known ? static_cast<ExitCode>(number) : ExitCode::kInternal,
                   .what = text_at(error, "what"),
                   .seen = text_at(error, "seen"),
                   .needed = text_at(error, "needed"),
                   .mend = text_at(error, "mend")};
}

Status check_control_name(const std::string& vm_name) {
  bool good = !vm_name.empty() && vm_name.size() <= 64 && vm_name[0] != '.';
  for (const char c : vm_name) good = good && static_cast<unsigned char>(c) > 0x20 && c != 0x7f;
  if (good && vm_name.find('/') == std::string::npos) return Done{};
  return UserError{.id = "CTL-003",
                   .exit_code = ExitCode::kUsage,
                   .what = "a VM's control socket cannot have this name",
                   .seen = "\"" + vm_name + "\"",
                   .needed =
                       "1 to 64 bytes without '/', blanks and control characters, not "
                       "beginning with a dot",
                   .mend = "name the VM differently"};
}

std::optional<int> pid_in_socket_name(const std::string& file, const std::string& vm_name) {
  std::string_view rest = file;
  if (!rest.ends_with(kSuffix)) return std::nullopt;
  rest.remove_suffix(kSuffix.size());
  const size_t dot = rest.rfind('.');
  if (dot == std::string_view::npos || dot == 0) return std::nullopt;
  if (!vm_name.empty() && rest.substr(0, dot) != vm_name) return std::nullopt;
  std::string_view digits = rest.substr(dot + 1);
  const size_t dash = digits.find('-');
  if (dash != std::string_view::npos) {
    if (digits.find_first_not_of("0123456789", dash + 1) != std::string_view::npos)
      return std::nullopt;
    digits = digits.substr(0, dash);
  }
  int pid = 0;
  const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), pid);
  if (error != std::errc{} || stop != digits.data() + digits.size() || pid <= 0)
    return std::nullopt;
  return pid;
}

}  // namespace us::tools
