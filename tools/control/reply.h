// Control requests and replies as lines: what both ends of the socket share.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/result.h"

namespace us::tools {

constexpr size_t kRequestMax = 64 * 1024;  // bytes of a line
constexpr size_t kReplyMax = 1024 * 1024;

// One JSON value in one line, without the newline. What is not UTF-8 in it is replaced.
std::string to_line(const nlohmann::json& json);
// {"error":{"id","exit_code","what","seen","needed","mend"}}
nlohmann::json error_reply(const UserError& error);
// Nothing: the reply is no error. One that is malformed is CTL-002.
std::optional<UserError> error_in(const nlohmann::json& reply);

// A VM's name as part of a file's name: CTL-003 where it cannot be.
Status check_control_name(const std::string& vm_name);
// The process id in NAME.PID.sock (or NAME.PID-N.sock); nothing: not one of `vm_name`'s. An empty
// `vm_name` fits any.
std::optional<int> pid_in_socket_name(const std::string& file, const std::string& vm_name);

}  // namespace us::tools
