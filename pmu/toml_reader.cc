#include "pmu/toml_reader.h"

#include <cmath>
#include <fmt/format.h>

namespace us::pmu {

std::string line_of(const toml::node& node) {
  return fmt::format("line {}", node.source().begin.line);
}

UserError profile_error(const char* id, const std::string& file, const std::string& seen,
                        const std::string& needed) {
  return {id,
          ExitCode::kUsage,
          fmt::format("cannot use the host profile {}", file),
          seen,
          needed,
          fmt::format("mend the file, or measure a new one: `understudy calibrate -o {}`", file)};
}

void TomlReader::fail(const char* id, const toml::node& node, const std::string& key,
                      const std::string& seen, const std::string& needed) {
  if (error_) return;
  error_ = profile_error(id, file_,
                         fmt::format("{}: {}{} is {}", line_of(node), prefix_, key, seen), needed);
}

void TomlReader::require(const char* key, const char* needed) {
  if (error_ || has(key)) return;
  error_ = profile_error("PMU-003", file_, fmt::format("no key {}{}", prefix_, key), needed);
}

const toml::node* TomlReader::find(const char* key) {
  asked_.insert(key);
  return error_ ? nullptr : table_.get(key);
}

void TomlReader::text(const char* key, std::string& out, size_t bytes_max) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const auto* value = node->as_string();
  if (value == nullptr || value->get().size() > bytes_max) {
    return fail("PMU-005", *node, key, "no text, or too long",
                fmt::format("text in quotes, at most {} bytes", bytes_max));
  }
  out = value->get();
}

void TomlReader::boolean(const char* key, bool& out) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const auto* value = node->as_boolean();
  if (value == nullptr) return fail("PMU-005", *node, key, "not a truth value", "true or false");
  out = value->get();
}

void TomlReader::number(const char* key, uint64_t& out, uint64_t max, uint64_t min) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const std::string needed = fmt::format("a whole number from {} to {}", min, max);
  const auto* value = node->as_integer();
  if (value == nullptr) return fail("PMU-005", *node, key, "not a whole number", needed);
  const int64_t got = value->get();
  if (got < 0 || static_cast<uint64_t>(got) > max || static_cast<uint64_t>(got) < min) {
    return fail("PMU-005", *node, key, std::to_string(got), needed);
  }
  out = static_cast<uint64_t>(got);
}

void TomlReader::number(const char* key, uint32_t& out, uint32_t max) {
  uint64_t wide = out;
  number(key, wide, max);
  out = static_cast<uint32_t>(wide);
}

void TomlReader::real(const char* key, std::optional<double>& out, bool may_be_negative) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const auto value = node->is_number() ? node->value<double>() : std::nullopt;
  if (!value || !std::isfinite(*value) || (*value < 0 && !may_be_negative)) {
    return fail("PMU-005", *node, key, "not a number that can be",
                may_be_negative ? "a number" : "a number, not negative");
  }
  out = *value;
}

const toml::array* TomlReader::array(const char* key) {
  const toml::node* node = find(key);
  if (node == nullptr) return nullptr;
  if (node->as_array() == nullptr) fail("PMU-005", *node, key, "not a list", "a list");
  return node->as_array();
}

const toml::table* TomlReader::table(const char* key) {
  const toml::node* node = find(key);
  if (node == nullptr) return nullptr;
  if (node->as_table() == nullptr) fail("PMU-005", *node, key, "not a table", "a table");
  return node->as_table();
}

void TomlReader::refuse_unknown_keys() {
  for (const auto& [key, node] : table_) {
    if (error_) return;
    const std::string name(key.str());
    if (asked_.count(name) != 0) continue;
    fail("PMU-004", node, name, "unknown", "only keys that understudy-host-profile(5) names");
  }
}

}  // namespace us::pmu
