#include "logchannel/memory_log.h"

namespace us::log {
namespace {

UserError damaged(const char* seen) {
  return {"LOG-006", ExitCode::kLogUnreadable, "cannot read the log in memory",
          seen,      "an undamaged log",       ""};
}

}  // namespace

LogPosition MemorySink::append(const Record& record) {
  const LogPosition position = builder_.append(record);
  if (builder_.full()) (void)flush();
  return position;
}

Status MemorySink::flush() {
  if (builder_.empty()) return Done{};
  const ByteSpan frame = builder_.finish();
  bytes_.insert(bytes_.end(), frame.begin(), frame.end());
  return Done{};
}

Result<std::optional<Record>> MemoryStream::next() {
  while (records_.at_end()) {
    if (end_.ended) return std::optional<Record>();
    fed_ += frames_.feed(ByteSpan(*bytes_).subspan(fed_));
    auto frame = frames_.next();
    if (!frame) return damaged(describe(frame.error()));
    if (!frame->has_value()) return std::optional<Record>();
    if (((*frame)->header.flags & kFrameFresh) != 0) decoder_.start_afresh();
    frame_position_ = (*frame)->header.first_position;
    records_ = ByteReader((*frame)->records);
  }
  auto record = decoder_.decode(records_);
  if (!record) return damaged(describe(record.error()));
  position_ = frame_position_ + records_.position();
  if (std::holds_alternative<End>((*record)->body)) end_ = {true, true, "end record", position_};
  return std::move(*record);
}

}  // namespace us::log
