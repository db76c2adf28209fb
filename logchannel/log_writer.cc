#include "logchannel/log_writer.h"

#include <cerrno>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/draft_file.h"
#include "base/file_io.h"

namespace us::log {
namespace {

UserError create_error(const std::filesystem::path& folder, const std::string& seen,
                       const std::string& needed, const std::string& mend) {
  return {
      "LOG-014", ExitCode::kUsage, fmt::format("cannot create the recording {}", folder.string()),
      seen,      needed,           mend};
}

bool out_of_space(int error_number) {
  return error_number == ENOSPC || error_number == EDQUOT || error_number == EFBIG;
}

// The manifest appears whole or not at all. 0 or an errno.
int write_manifest(const std::filesystem::path& folder, const Manifest& manifest) {
  DraftFile draft(folder / kManifestName, {.durable = true});
  draft.write(encode_manifest(manifest));
  return draft.commit() ? sync_folder(folder) : draft.error();
}

Status usable_folder(const std::filesystem::path& folder) {
  if (::mkdir(folder.c_str(), 0777) == 0) return Done{};
  const int error_number = errno;
  if (error_number != EEXIST) {
    return create_error(folder, std::strerror(error_number), "a directory that can be made",
                        "make the directory above it, or name another place with -o");
  }
  std::error_code error;
  const bool empty = std::filesystem::is_empty(folder, error);
  if (!error && empty) return Done{};
  return create_error(folder, error ? error.message() : "it exists and is not empty",
                      "a new or empty directory", "name another one with -o, or remove it");
}

}  // namespace

Result<std::unique_ptr<LogWriter>> LogWriter::create(const std::filesystem::path& folder,
                                                     const LogWriterOptions& options) {
  if (Status usable = usable_folder(folder); !usable) return usable.error();
  const Manifest manifest{make_recording_id(), static_cast<uint64_t>(std::time(nullptr)),
                          options.created_by};
  if (const int error = write_manifest(folder, manifest); error != 0) {
    return create_error(folder, std::strerror(error), "room for a manifest",
                        "free some space, or name another place with -o");
  }
  std::unique_ptr<LogWriter> writer(new LogWriter(folder, options, manifest.id));
  writer->total_bytes_ = encode_manifest(manifest).size();
  // At once, so that a place that takes no writes is refused before a guest has run.
  if (Status opened = writer->open_segment(); !opened) return opened.error();
  return writer;
}

LogWriter::LogWriter(std::filesystem::path folder, const LogWriterOptions& options,
                     const RecordingId& id)
    : folder_(std::move(folder)), options_(options), id_(id), builder_(options.frame) {}

LogWriter::~LogWriter() {
  if (!closed_) (void)close();
}

// The next segment begins with the frame in the making.
Status LogWriter::open_segment() {
  US_CHECK(segment_ < kSegmentsMax, "a recording of {} segments", segment_);
  const std::filesystem::path path = folder_ / segment_name(segment_);
  file_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_APPEND, 0666);
  if (file_ < 0) return fail(fmt::format("cannot create {}", path.string()), errno);
  const Bytes header =
      encode_segment_header({id_, segment_, builder_.next_sequence(), segment_start_});
  size_t written = 0;
  if (const int error = write_all(file_, header, written); error != 0) {
    // No segment is better than one without a header.
    close_segment();
    ::unlink(path.c_str());
    return fail(fmt::format("cannot write {}", path.string()), error);
  }
  ++segment_;
  segment_bytes_ = header.size();
  total_bytes_ += header.size();
  return Done{};
}

LogPosition LogWriter::append(const Record& record) {
  US_CHECK(!closed_, "append to a closed recording");
  if (error_) return builder_.position();
  const bool first = builder_.empty();
  const LogPosition position = builder_.append(record);
  ++records_;
  if (builder_.full()) {
    (void)write_frame();
    return position;
  }
  if (options_.flush_interval_ms == 0) return position;
  if (first) {
    oldest_waiting_ = std::chrono::steady_clock::now();
  } else {
    (void)poll();
  }
  return position;
}

Status LogWriter::poll() {
  if (error_) return *error_;
  if (builder_.empty() || options_.flush_interval_ms == 0) return Done{};
  const auto waited = std::chrono::steady_clock::now() - oldest_waiting_;
  if (waited < std::chrono::milliseconds(options_.flush_interval_ms)) return Done{};
  return write_frame();
}

Status LogWriter::flush() {
  if (error_) return *error_;
  return builder_.empty() ? Status(Done{}) : write_frame();
}

Status LogWriter::status() const {
  if (error_) return *error_;
  return Done{};
}

Status LogWriter::write_frame() {
  if (file_ < 0) {
    if (Status opened = open_segment(); !opened) return opened;
  }
  const ByteSpan frame = builder_.finish();
  size_t written = 0;
  if (const int error = write_all(file_, frame, written); error != 0) {
    // Cut the torn frame off again, so that what is there is whole. If that fails too, it stays and
    // the reader drops it.
    if (written != 0 && ::ftruncate(file_, static_cast<off_t>(segment_bytes_)) != 0) torn_ = true;
    return fail(fmt::format("cannot write {}", (folder_ / segment_name(segment_ - 1)).string()),
                error);
  }
  segment_bytes_ += frame.size();
  total_bytes_ += frame.size();
  if (segment_bytes_ >= options_.segment_bytes) {
    // Start the write-back now; close() only waits for the last segment and the folder.
    ::sync_file_range(file_, 0, 0, SYNC_FILE_RANGE_WRITE);
    close_segment();
    segment_start_ = builder_.position();
    builder_.start_afresh();
  }
  return Done{};
}

Status LogWriter::fail(const std::string& what, int error_number) {
  const bool space = out_of_space(error_number);
  error_ = UserError{"LOG-015",
                     space ? ExitCode::kStoppedAtLimit : ExitCode::kInternal,
                     what,
                     std::strerror(error_number),
                     space ? "space for the recording" : "a disk that takes writes",
                     space ? "free some space, or limit the recording's size; what was written "
                             "is a valid recording up to its last whole frame"
                           : "check the disk; what was written is readable up to the last whole "
                             "frame"};
  return *error_;
}

void LogWriter::close_segment() {
  if (file_ < 0) return;
  ::close(file_);
  file_ = -1;
}

Status LogWriter::close() {
  if (closed_) return status();
  Status flushed = flush();
  closed_ = true;
  if (flushed && file_ >= 0 && ::fdatasync(file_) != 0) {
    flushed = fail("cannot make the recording durable", errno);
  }
  close_segment();
  if (flushed && segment_ > 0) sync_folder(folder_);
  return flushed;
}

bool LogWriter::limit_reached() const {
  return options_.bytes_max != 0 && total_bytes_ + builder_.pending_bytes() >= options_.bytes_max;
}

}  // namespace us::log
