#include "tools/vm_config.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <sys/stat.h>
#include <toml++/toml.h>
#include <unistd.h>

#include "base/digest.h"
#include "tools/host_profile.h"

namespace us::tools {
namespace {

constexpr const char* kManual = "see vm.toml in understudy(1)";

UserError bad_value(const std::string& where, std::string seen, std::string needed) {
  return {.id = "VM-004",
          .what = "bad value in " + where,
          .seen = std::move(seen),
          .needed = std::move(needed),
          .mend = kManual};
}

// Reads one table key by key, remembers the first error, and knows which keys nobody asked for.
class TableReader {
 public:
  TableReader(const toml::table& table, std::string file, std::string path)
      : table_(table), file_(std::move(file)), path_(std::move(path)) {}

  void text(const char* key, std::string& out) {
    read<std::string>(key, "a string", [&](const std::string& v) { out = v; });
  }
  void boolean(const char* key, bool& out) {
    read<bool>(key, "true or false", [&](bool v) { out = v; });
  }
  void number(const char* key, uint64_t& out) {
    read<int64_t>(key, "a whole number, zero or more", [&](int64_t v) {
      if (v < 0) return fail(key, std::to_string(v), "a whole number, zero or more");
      out = static_cast<uint64_t>(v);
    });
  }
  void size(const char* key, uint64_t& out) {
    read<std::string>(key, "a size such as \"256M\"", [&](const std::string& v) {
      const auto bytes = parse_size(v, where(key));
      if (!bytes.ok()) return note(bytes.error());
      out = *bytes;
    });
  }
  void choice(const char* key, std::string& out, std::initializer_list<const char*> allowed) {
    text(key, out);
    if (!table_.contains(key) || error_) return;
    std::string list;
    for (const char* a : allowed) {
      if (out == a) return;
      list += (list.empty() ? "" : ", ") + std::string(a);
    }
    fail(key, "\"" + out + "\"", "one of: " + list);
  }
  const toml::table* table(const char* key) {
    const toml::table* found = nullptr;
    read_node(key, [&](const toml::node& node) {
      found = node.as_table();
      if (found == nullptr) fail(key, "something else", "a table [" + std::string(key) + "]");
    });
    return found;
  }
  const toml::array* tables(const char* key) {
    const toml::array* found = nullptr;
    read_node(key, [&](const toml::node& node) {
      found = node.as_array();
      const bool all = found != nullptr && std::all_of(found->begin(), found->end(),
                                                       [](auto& n) { return n.is_table(); });
      if (!all) fail(key, "something else", "tables [[" + std::string(key) + "]]"), found = nullptr;
    });
    return found;
  }
  // Unknown keys are mistakes, not hints: a misspelt option must not be ignored.
  void finish() {
    for (const auto& [key, node] : table_) {
      const std::string name(key.str());
      if (error_ || std::find(asked_.begin(), asked_.end(), name) != asked_.end()) continue;
      std::string known;
      for (const auto& a : asked_) known += (known.empty() ? "" : ", ") + a;
      note({.id = "VM-003",
            .what = fmt::format("unknown key in {}", where(name.c_str())),
            .seen = fmt::format("\"{}\"", name),
            .needed = "one of: " + known,
            .mend = "remove it or correct its spelling; " + std::string(kManual)});
    }
  }
  std::optional<UserError> take_error() { return std::move(error_); }
  void note(UserError error) {
    if (!error_) error_ = std::move(error);
  }
  std::string where(const char* key) const {
    std::string place = file_;
    if (const toml::node* node = table_.get(key))
      place += fmt::format(" line {}", node->source().begin.line);
    return fmt::format("{}, key \"{}{}\"", place, path_, key);
  }
  const std::string& file() const { return file_; }
  void fail(const char* key, std::string seen, std::string needed) {
    note(bad_value(where(key), std::move(seen), std::move(needed)));
  }

 private:
  template <class F>
  void read_node(const char* key, F use) {
    asked_.emplace_back(key);
    if (const toml::node* node = table_.get(key); node != nullptr && !error_) use(*node);
  }
  template <class T, class F>
  void read(const char* key, const char* needed, F use) {
    read_node(key, [&](const toml::node& node) {
      const auto* value = node.as<T>();
      if (value == nullptr) {
        std::ostringstream seen;
        seen << "a value of type " << node.type();
        return fail(key, seen.str(), needed);
      }
      use(value->get());
    });
  }

  const toml::table& table_;
  std::string file_, path_;
  std::vector<std::string> asked_;
  std::optional<UserError> error_;
};

void read_section(TableReader& root, const char* name, const std::function<void(TableReader&)>& f) {
  const toml::table* table = root.table(name);
  if (table == nullptr) return;
  TableReader reader(*table, root.file(), std::string(name) + ".");
  f(reader);
  reader.finish();
  if (auto error = reader.take_error()) root.note(std::move(*error));
}

void read_list(TableReader& root, const char* name, const std::function<void(TableReader&)>& f) {
  const toml::array* array = root.tables(name);
  if (array == nullptr) return;
  for (size_t i = 0; i < array->size(); ++i) {
    TableReader reader(*array->get(i)->as_table(), root.file(), fmt::format("{}[{}].", name, i));
    f(reader);
    reader.finish();
    if (auto error = reader.take_error()) root.note(std::move(*error));
  }
}

void read_disk(TableReader& r, VmConfig& config) {
  VmDisk disk;
  r.text("path", disk.path);
  r.boolean("read_only", disk.read_only);
  std::string reads = "log";
  r.choice("secondary_reads", reads, {"log", "disk"});
  disk.secondary_reads_disk = reads == "disk";
  if (disk.path.empty()) r.fail("path", "nothing", "the path of a raw disk image");
  config.disks.push_back(std::move(disk));
}

void read_net(TableReader& r, VmConfig& config) {
  VmNet net{.mac = "", .backend = "none"};
  r.text("mac", net.mac);
  r.text("backend", net.backend);
  if (!net.mac.empty() && !parse_mac(net.mac))
    r.fail("mac", "\"" + net.mac + "\"", "six bytes such as 52:54:00:12:34:56, not multicast");
  config.nets.push_back(std::move(net));
}

void read_root(TableReader& root, VmConfig& config) {
  root.text("name", config.name);
  root.choice("backend", config.backend.name, {"auto", "soft", "kvm"});
  root.boolean("cooperative", config.backend.cooperative);
  root.choice("executor", config.executor, {"auto", "interpret", "translate"});
  root.size("memory", config.memory_bytes);
  read_section(root, "boot", [&](TableReader& r) {
    r.text("kernel", config.kernel);
    r.text("initrd", config.initrd);
    r.text("cmdline", config.cmdline);
  });
  read_list(root, "disk", [&](TableReader& r) { read_disk(r, config); });
  read_list(root, "net", [&](TableReader& r) { read_net(r, config); });
  read_section(root, "ft", [&](TableReader& r) {
    r.text("secondary", config.ft.secondary);
    r.text("arbiter", config.ft.arbiter);
    r.text("credentials", config.ft.credentials);
    r.number("lag_target_ms", config.ft.lag_target_ms);
  });
  read_section(root, "ipt", [&](TableReader& r) { r.boolean("check", config.ipt_check); });
  read_section(root, "pmu", [&](TableReader& r) { r.text("profile", config.pmu_profile); });
  read_section(root, "debug", [&](TableReader& r) { r.boolean("exit_port", config.debug_exit); });
}

void make_absolute(std::string& path, const std::filesystem::path& folder) {
  if (!path.empty() && std::filesystem::path(path).is_relative()) path = (folder / path).string();
}

// The same for what names its kind first, as "psk:FILE" does.
void make_absolute_after(std::string& text, std::initializer_list<const char*> kinds,
                         const std::filesystem::path& folder) {
  for (const std::string kind : kinds) {
    if (!text.starts_with(kind) || text.size() == kind.size() || text[kind.size()] == '/') continue;
    text = kind + (folder / text.substr(kind.size())).string();
    return;
  }
}

void check_readable(std::vector<UserError>& found, const std::string& what, const std::string& path,
                    bool for_writing) {
  if (access(path.c_str(), R_OK | (for_writing ? W_OK : 0)) == 0) return;
  found.push_back(
      {.id = "VM-005",
       .what = fmt::format("cannot use {} {}", what, path),
       .seen = std::strerror(errno),
       .needed = for_writing ? "a file that can be read and written" : "a file that can be read",
       .mend = "correct the path or its permissions"});
}

}  // namespace

Result<uint64_t> parse_size(const std::string& text, const std::string& where) {
  size_t used = 0;
  uint64_t value = 0;
  bool good = !text.empty() && text[0] >= '0' && text[0] <= '9';
  if (good) {
    try {
      value = std::stoull(text, &used);
    } catch (const std::exception&) {
      good = false;
    }
  }
  unsigned shift = 0;
  if (good && used + 1 == text.size()) {
    switch (text[used]) {
      case 'K':
      case 'k': shift = 10; break;
      case 'M':
      case 'm': shift = 20; break;
      case 'G':
      case 'g': shift = 30; break;
      default: good = false;
    }
  } else if (good && used != text.size()) {
    good = false;
  }
  if (good && (value << shift) >> shift != value) good = false;
  if (!good) return bad_value(where, "\"" + text + "\"", "a size such as 256M, 1G or 65536K");
  return value << shift;
}

std::optional<std::array<uint8_t, 6>> parse_mac(const std::string& text) {
  std::array<unsigned, 6> part{};
  char rest = 0;
  if (text.size() != 17 ||
      std::sscanf(text.c_str(), "%2x:%2x:%2x:%2x:%2x:%2x%c", &part[0], &part[1], &part[2], &part[3],
                  &part[4], &part[5], &rest) != 6)
    return std::nullopt;
  std::array<uint8_t, 6> mac{};
  std::copy(part.begin(), part.end(), mac.begin());
  if (mac[0] & 1) return std::nullopt;
  return mac;
}

std::array<uint8_t, 6> default_mac(const std::string& vm_name, unsigned index) {
  const std::string text = fmt::format("{}#{}", vm_name, index);
  const Digest d = digest_of({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  return {0x52,
          0x54,
          static_cast<uint8_t>(d.low),
          static_cast<uint8_t>(d.low >> 8),
          static_cast<uint8_t>(d.low >> 16),
          static_cast<uint8_t>(d.low >> 24)};
}

Result<VmConfig> parse_vm_config(const std::string& text, const std::string& name) {
  VmConfig config;
  try {
    const toml::table table = toml::parse(text, name);
    TableReader root(table, name, "");
    read_root(root, config);
    root.finish();
    if (auto error = root.take_error()) return *error;
  } catch (const toml::parse_error& e) {
    return UserError{.id = "VM-002",
                     .what = fmt::format("{} line {} is not TOML", name, e.source().begin.line),
                     .seen = std::string(e.description()),
                     .needed = "key = value lines and [tables]",
                     .mend = kManual};
  }
  return config;
}

Result<VmConfig> parse_run_config(const std::string& text, const std::string& name) {
  auto config = parse_vm_config(text, name);
  if (config.ok() && config->backend.name == "auto") config->backend.name = "soft";
  return config;
}

Result<VmConfig> read_vm_config(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  if (!file) {
    return UserError{.id = "VM-001",
                     .what = "cannot read " + path,
                     .seen = std::strerror(errno),
                     .needed = "a VM description in TOML",
                     .mend = "correct the path, or say it by options (understudy run --help)"};
  }
  auto config = parse_vm_config(text.str(), path);
  if (!config.ok()) return config;
  const auto folder = std::filesystem::absolute(path).parent_path();
  make_absolute(config->kernel, folder);
  make_absolute(config->initrd, folder);
  make_absolute(config->pmu_profile, folder);
  for (VmDisk& disk : config->disks) make_absolute(disk.path, folder);
  make_absolute_after(config->ft.credentials, {"psk:", "cert:"}, folder);
  make_absolute_after(config->ft.arbiter, {"file:"}, folder);
  return config;
}

std::string to_toml(const VmConfig& c) {
  toml::table root{
      {"name", c.name},
      {"backend", c.backend.name},
      {"memory", fmt::format("{}K", c.memory_bytes >> 10)},
      {"boot", toml::table{{"kernel", c.kernel}, {"initrd", c.initrd}, {"cmdline", c.cmdline}}},
      {"ipt", toml::table{{"check", c.ipt_check}}},
      {"pmu", toml::table{{"profile", c.pmu_profile}}},
      {"debug", toml::table{{"exit_port", c.debug_exit}}},
      {"ft", toml::table{{"secondary", c.ft.secondary},
                         {"arbiter", c.ft.arbiter},
                         {"credentials", c.ft.credentials},
                         {"lag_target_ms", static_cast<int64_t>(c.ft.lag_target_ms)}}}};
  if (c.backend.cooperative) root.insert("cooperative", true);
  if (c.executor != "auto") root.insert("executor", c.executor);
  toml::array disks, nets;
  for (const VmDisk& d : c.disks)
    disks.push_back(toml::table{{"path", d.path},
                                {"read_only", d.read_only},
                                {"secondary_reads", d.secondary_reads_disk ? "disk" : "log"}});
  for (const VmNet& n : c.nets) nets.push_back(toml::table{{"mac", n.mac}, {"backend", n.backend}});
  if (!disks.empty()) root.insert("disk", disks);
  if (!nets.empty()) root.insert("net", nets);
  std::ostringstream out;
  out << root << "\n";
  return out.str();
}

std::vector<UserError> check_vm_config(const VmConfig& c) {
  std::vector<UserError> found;
  if (c.kernel.empty()) {
    found.push_back({.id = "VM-006",
                     .what = "no kernel is named",
                     .seen = "neither [boot] kernel nor --kernel",
                     .needed = "a bzImage, an ELF with a PVH note, or a Multiboot image",
                     .mend = "`./dev guest` makes build/guest/vmlinuz and initrd.img"});
  } else {
    check_readable(found, "kernel", c.kernel, false);
  }
  if (!c.initrd.empty()) check_readable(found, "initrd", c.initrd, false);
  for (const VmDisk& d : c.disks) check_readable(found, "disk", d.path, !d.read_only);
  if (!c.pmu_profile.empty())
    if (const auto profile = load_host_profile(c.pmu_profile, c.backend); !profile.ok())
      found.push_back(profile.error());
  if (c.memory_bytes < (16u << 20) || c.memory_bytes % 4096 != 0)
    found.push_back(bad_value("memory", fmt::format("{} bytes", c.memory_bytes),
                              "at least 16M, in whole 4 KiB pages"));
  if (c.disks.size() > 8 || c.nets.size() > 8)
    found.push_back(bad_value("disk and net",
                              fmt::format("{} disks, {} nets", c.disks.size(), c.nets.size()),
                              "at most 8 of each"));
  return found;
}

}  // namespace us::tools
