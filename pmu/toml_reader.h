// Reads one TOML table key by key; the first thing wrong is kept, with file, line and key. Keys
// never asked for are unknown.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <toml++/toml.h>

#include "base/result.h"

namespace us::pmu {

class TomlReader {
 public:
  // `file` goes into errors, `prefix` is "" or the table's name with a dot.
  TomlReader(const toml::table& table, std::string file, std::string prefix,
             std::optional<UserError>& error)
      : table_(table), file_(std::move(file)), prefix_(std::move(prefix)), error_(error) {}

  bool has(const char* key) const { return table_.contains(key); }
  void require(const char* key, const char* needed);

  void text(const char* key, std::string& out, size_t bytes_max = 256);
  void boolean(const char* key, bool& out);
  void number(const char* key, uint64_t& out, uint64_t max, uint64_t min = 0);
  void number(const char* key, uint32_t& out, uint32_t max);
  void real(const char* key, std::optional<double>& out, bool may_be_negative = false);
  const toml::array* array(const char* key);
  const toml::table* table(const char* key);

  // A failure at this node, unless there was one before.
  void fail(const char* id, const toml::node& node, const std::string& key, const std::string& seen,
            const std::string& needed);
  // Reports the first key that was not asked for.
  void refuse_unknown_keys();

 private:
  const toml::node* find(const char* key);

  const toml::table& table_;
  std::string file_;
  std::string prefix_;
  std::optional<UserError>& error_;
  std::set<std::string> asked_;
};

// "line 3"
std::string line_of(const toml::node& node);
UserError profile_error(const char* id, const std::string& file, const std::string& seen,
                        const std::string& needed);

}  // namespace us::pmu
