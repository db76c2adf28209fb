#include "tools/saved_replay.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <sys/stat.h>

#include "base/draft_file.h"
#include "base/file_io.h"
#include "hv/machine_config.h"

namespace us::tools {
namespace {

namespace fs = std::filesystem;

UserError file_error(const std::string& path, const char* verb, std::string seen) {
  return {.id = "SNAP-004",
          .exit_code = ExitCode::kHostCannot,
          .what = fmt::format("cannot {} the saved replay {}", verb, path),
          .seen = std::move(seen),
          .needed = "a file that can be used, in a folder with enough free space",
          .mend = "correct the path or free space"};
}

UserError foreign(std::string seen, std::string needed) {
  return {.id = "SNAP-005",
          .exit_code = ExitCode::kIncompatible,
          .what = "the saved replay is of another recording",
          .seen = std::move(seen),
          .needed = std::move(needed),
          .mend = "name the recording that it was saved from"};
}

UserError contradiction(std::string seen, std::string needed, std::string mend) {
  return {.id = "SNAP-007",
          .exit_code = ExitCode::kUsage,
          .what = "--goto, --save and --from do not go together like this",
          .seen = std::move(seen),
          .needed = std::move(needed),
          .mend = std::move(mend)};
}

Bytes encoded(const hv::MachineConfig& config) {
  ByteWriter out;
  hv::encode(config, out);
  return out.take();
}

hv::SnapshotSource source_of(std::FILE* file) {
  return [file](std::span<uint8_t> out) {
    return out.empty() || std::fread(out.data(), 1, out.size(), file) == out.size();
  };
}

}  // namespace

Result<SavedReplay> SavedReplay::open(const std::string& path) {
  File file(std::fopen(path.c_str(), "rbe"));
  if (file == nullptr) return file_error(path, "read", std::strerror(errno));
  auto bookmark = replay::read_bookmark(source_of(file.get()));
  if (std::ferror(file.get()) != 0) return file_error(path, "read", std::strerror(errno));
  if (!bookmark.ok()) return bookmark.error();
  return SavedReplay(std::move(file), std::move(bookmark).value());
}

Result<std::unique_ptr<hv::Machine>> SavedReplay::restore(const hv::MachineConfig& recorded,
                                                          hv::OutputSink& output) {
  auto machine = replay::read_saved_machine(bookmark_, source_of(file_.get()), output);
  if (machine.ok() && encoded((*machine)->config()) != encoded(recorded))
    return foreign("a machine with other memory or devices", "the recorded machine");
  return machine;
}

Status save_replay(const std::string& path, const replay::Bookmark& bookmark,
                   hv::Machine& machine) {
  struct stat there;
  if (::stat(path.c_str(), &there) == 0 && !S_ISREG(there.st_mode))
    return file_error(path, "write", "something there that is no regular file");
  DraftFile draft(path, {.mode = 0600, .durable = true});
  const auto failed = [&] { return file_error(path, "write", std::strerror(draft.error())); };
  if (draft.error() != 0) return failed();
  const Status written =
      replay::write_saved_replay(bookmark, machine, [&](ByteSpan bytes) -> Status {
        if (!draft.write(bytes)) return failed();
        return Done{};
      });
  if (!written.ok()) return written;
  if (!draft.commit()) return failed();
  // The file is whole whatever comes of this, so a folder that cannot be synced is no error.
  (void)sync_folder(fs::path(path).parent_path());
  return Done{};
}

void PlaceOptions::add_to(CLI::App& app) {
  goto_ = app.add_option("--goto", goto_branches_, "stop at this conditional branch count");
  app.add_option("--save", save_, "with --goto: keep the replay there in this file");
  app.add_option("--from", from_, "go on from the file that --save wrote");
}

std::optional<Branches> PlaceOptions::place() const {
  if (goto_ == nullptr || goto_->count() == 0) return std::nullopt;
  return Branches(goto_branches_);
}

Result<std::optional<SavedReplay>> PlaceOptions::open(const log::RecordingId& recording) const {
  if (!save_.empty() && !place())
    return contradiction("--save without --goto", "the place to save at", "add --goto N");
  if (from_.empty()) return std::optional<SavedReplay>();
  auto saved = SavedReplay::open(from_);
  if (!saved.ok()) return saved.error();
  const replay::Bookmark& bookmark = saved->bookmark();
  if (bookmark.recording != recording)
    return foreign("saved from recording " + log::to_hex(bookmark.recording),
                   "recording " + log::to_hex(recording));
  if (place() && *place() < bookmark.point.branches)
    return contradiction(fmt::format("--goto {}, and a replay saved at branch {}", place()->value,
                                     bookmark.point.branches.value),
                         "a place that is still to come",
                         "go on from an earlier one, or replay from the beginning");
  return std::optional<SavedReplay>(std::move(saved).value());
}

}  // namespace us::tools
