// Replays kept in files: `replay --save` writes one, `replay --from` goes on from it.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "replay-engine/bookmark.h"

namespace us::tools {

// A saved replay that is being read.
class SavedReplay {
 public:
  // Errors: SNAP-001 to SNAP-004 of the file's beginning.
  static Result<SavedReplay> open(const std::string& path);

  const replay::Bookmark& bookmark() const { return bookmark_; }
  // The machine it holds, once. Errors: those of replay::read_saved_machine; SNAP-005 it is not the
  // recorded one.
  Result<std::unique_ptr<hv::Machine>> restore(const hv::MachineConfig& recorded,
                                               hv::OutputSink& output);

 private:
  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  using File = std::unique_ptr<std::FILE, Closer>;
  SavedReplay(File file, replay::Bookmark bookmark)
      : file_(std::move(file)), bookmark_(std::move(bookmark)) {}

  File file_;
  replay::Bookmark bookmark_;
};

// Writes the file whole or not at all, readable by its owner only: it holds the guest's memory.
// Errors: SNAP-004.
Status save_replay(const std::string& path, const replay::Bookmark& bookmark, hv::Machine& machine);

// --goto, --save and --from of `replay`.
class PlaceOptions {
 public:
  void add_to(CLI::App& app);

  // The place of --goto.
  std::optional<Branches> place() const;
  const std::string& save_to() const { return save_; }
  // The saved replay to go on from, if any; it belongs to the recording, and does not stand behind
  // the place. Errors: those of SavedReplay::open; SNAP-005 of another recording, SNAP-007 options
  // that do not go together.
  Result<std::optional<SavedReplay>> open(const log::RecordingId& recording) const;

 private:
  uint64_t goto_branches_ = 0;
  CLI::Option* goto_ = nullptr;
  std::string save_, from_;
};

}  // namespace us::tools
