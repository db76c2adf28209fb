// A place in a recording, and the stream of a replay saved there: the bookmark, then the machine as
// a snapshot (hv/snapshot.h). Restored, with the log passed over up to the same place, a replay
// goes on as if it had never stopped.
#pragma once

#include <optional>

#include "hv/snapshot.h"
#include "logchannel/log_files.h"
#include "logchannel/log_stream.h"

namespace us::replay {

// Version of the bookmark; the snapshot has its own. Another one is refused.
constexpr uint32_t kBookmarkVersion = 1;

struct Bookmark {
  log::RecordingId recording{};
  // Records behind the description that the machine has seen, and the log position after the last
  // of them (0 where there is none).
  uint64_t records = 0;
  LogPosition position;
  hv::ExecutionPoint point;          // where the machine stands: not past the next record's
  hv::ExecutionPoint last_agreeing;  // of the last epoch whose digests agreed
  bool operator==(const Bookmark&) const = default;
};

Bytes encode(const Bookmark& bookmark);

// Reads the bookmark at a stream's start; the snapshot follows. Errors: SNAP-001 no saved replay,
// SNAP-002 other version, SNAP-003 damaged or cut short.
Result<Bookmark> read_bookmark(const hv::SnapshotSource& source);

// The whole stream. `machine` stands at bookmark.point. Errors: the sink's.
Status write_saved_replay(const Bookmark& bookmark, hv::Machine& machine,
                          const hv::SnapshotSink& sink);

// The machine behind a bookmark that was read. Errors: those of hv::read_snapshot; SNAP-003 it does
// not stand where the bookmark says, or something follows it.
Result<std::unique_ptr<hv::Machine>> read_saved_machine(const Bookmark& bookmark,
                                                        const hv::SnapshotSource& source,
                                                        hv::OutputSink& output);

// Passes over what the machine has seen; `first` is the record behind the description, and becomes
// the one behind the place. Errors: SNAP-006 the log is not the one that was saved from (it is
// shorter, or its records lie elsewhere), the stream's own.
Status skip_to(const Bookmark& bookmark, log::LogStream& log, std::optional<log::Record>& first);

}  // namespace us::replay
