#include "tools/recording.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sys/utsname.h>

#include "base/digest.h"
#include "hv/machine_config.h"

namespace us::tools {
namespace {

namespace fs = std::filesystem;

Bytes to_bytes(const std::string& text) { return {text.begin(), text.end()}; }
std::string to_text(const Bytes& bytes) { return {bytes.begin(), bytes.end()}; }

constexpr size_t kPieceBytes = 256 * 1024;

// In pieces: an unpacked kernel has 60 MiB, and the start of a recording or replay waits for this.
std::optional<Digest> digest_of_file(const fs::path& path) {
  std::ifstream file;
  file.rdbuf()->pubsetbuf(nullptr, 0);  // straight into the piece
  file.open(path, std::ios::binary);
  Digester digester;
  Bytes piece(kPieceBytes);
  while (file) {
    file.read(reinterpret_cast<char*>(piece.data()), static_cast<std::streamsize>(piece.size()));
    digester.add(ByteSpan(piece).first(static_cast<size_t>(file.gcount())));
  }
  if (!file.eof()) return std::nullopt;
  return digester.digest();
}

UserError cannot_keep(const fs::path& path) {
  return {.id = "REC-001",
          .exit_code = ExitCode::kHostCannot,
          .what = "cannot keep a copy of " + path.string() + " in the recording",
          .seen = std::strerror(errno),
          .needed = "a readable file and space for a copy",
          .mend = "correct the path or free space"};
}

UserError broken_section(const std::string& name) {
  return {.id = "LOG-022",
          .exit_code = ExitCode::kLogUnreadable,
          .what = "the recording does not describe its machine",
          .seen = "section \"" + name + "\" is missing or damaged",
          .needed = "sections vm, machine and boot at the log's start",
          .mend = "record again with this build"};
}

UserError changed_file(const fs::path& path, const std::string& seen, const std::string& needed) {
  return {.id = "REC-002",
          .exit_code = ExitCode::kIncompatible,
          .what = path.string() + " is not what was recorded",
          .seen = seen,
          .needed = "digest " + needed,
          .mend = "put the recording's own file back, or record again"};
}

// Copies through a reflink or the kernel where it can; the digest is of the copy.
Result<std::string> keep(const std::string& from, const fs::path& to) {
  std::error_code failed;
  fs::copy_file(from, to, fs::copy_options::overwrite_existing, failed);
  if (failed) {
    errno = failed.value();
    return cannot_keep(from);
  }
  const auto digest = digest_of_file(to);
  if (!digest) return cannot_keep(from);
  return digest->hex();
}

Status check(const fs::path& path, const std::string& digest) {
  const auto seen = digest_of_file(path);
  if (!seen) return changed_file(path, "it cannot be read", digest);
  if (seen->hex() != digest) return changed_file(path, "digest " + seen->hex(), digest);
  return Done{};
}

}  // namespace

Result<Bytes> keep_boot_files(const fs::path& folder, const VmConfig& config) {
  std::error_code failed;
  fs::create_directories(folder / "files", failed);
  nlohmann::json boot{{"cmdline", config.cmdline}};
  const auto kernel = keep(config.kernel, folder / "files" / "kernel");
  if (!kernel.ok()) return kernel.error();
  boot["kernel"] = *kernel;
  if (!config.initrd.empty()) {
    const auto initrd = keep(config.initrd, folder / "files" / "initrd");
    if (!initrd.ok()) return initrd.error();
    boot["initrd"] = *initrd;
  }
  return to_bytes(boot.dump());
}

Result<RecordedVm> read_description(const fs::path& folder, const replay::Sections& sections) {
  const auto section = [&](const char* name) -> const Bytes* {
    const auto found = sections.find(name);
    return found == sections.end() ? nullptr : &found->second;
  };
  const Bytes *vm = section("vm"), *machine = section("machine"), *boot = section("boot");
  if (vm == nullptr) return broken_section("vm");
  if (machine == nullptr) return broken_section("machine");
  if (boot == nullptr) return broken_section("boot");

  RecordedVm result;
  auto config = parse_run_config(to_text(*vm), "the recording's vm section");
  if (!config.ok()) return config.error();
  result.config = std::move(config).value();
  ByteReader reader(*machine);
  result.machine = hv::decode_machine_config(reader);
  if (reader.failed()) return broken_section("machine");

  const auto json = nlohmann::json::parse(to_text(*boot), nullptr, false);
  if (!json.is_object() || !json.value("kernel", nlohmann::json()).is_string() ||
      !json.value("cmdline", nlohmann::json()).is_string())
    return broken_section("boot");
  result.boot.kernel = (folder / "files" / "kernel").string();
  result.boot.cmdline = json["cmdline"].get<std::string>();
  if (Status s = check(result.boot.kernel, json["kernel"].get<std::string>()); !s.ok())
    return s.error();
  if (json.contains("initrd") && json["initrd"].is_string()) {
    result.boot.initrd = (folder / "files" / "initrd").string();
    if (Status s = check(result.boot.initrd, json["initrd"].get<std::string>()); !s.ok())
      return s.error();
  }
  if (const Bytes* pmu = section("pmu")) {
    auto profile = pmu::parse_profile(to_text(*pmu), "the recording's pmu section");
    if (!profile.ok()) return broken_section("pmu");
    result.profile = std::move(profile).value();
  }
  return result;
}

uint64_t recording_bytes(const fs::path& folder) {
  std::error_code failed;
  uint64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(folder, failed))
    if (entry.is_regular_file(failed)) bytes += entry.file_size(failed);
  return bytes;
}

Bytes host_section(const std::string& backend) {
  utsname name{};
  uname(&name);
  return to_bytes(nlohmann::json{{"build", UNDERSTUDY_VERSION},
                                 {"backend", backend},
                                 {"kernel", std::string(name.release)},
                                 {"machine", std::string(name.machine)}}
                      .dump());
}

}  // namespace us::tools
