#include "replay-engine/diverge/side.h"

#include "base/overloaded.h"

namespace us::replay {
namespace {

uint64_t bytes_of(const Next& next) {
  const auto* input = std::get_if<StampedInput>(&next);
  if (input == nullptr) return sizeof next;
  return sizeof next +
         std::visit(Overloaded{[](const hv::FrameInput& in) { return in.frame.size(); },
                               [](const hv::DiskDoneInput& in) { return in.data.size(); },
                               [](const hv::ConsoleInput& in) { return in.bytes.size(); },
                               [](const auto&) { return size_t{0}; }},
                    input->input);
}

}  // namespace

struct Feed::Shared {
  std::unique_ptr<log::LogStream> stream;
  std::unique_ptr<LogSource> source;
  std::deque<Next> kept;
  uint64_t kept_from = 0;  // ordinal of kept.front()
  uint64_t kept_bytes = 0;
  bool marked = false;
};

Result<Feed> Feed::open(const Side& side) {
  auto stream = side.open_log();
  if (!stream.ok()) return stream.error();
  Feed feed;
  feed.shared_ = std::make_shared<Shared>();
  feed.shared_->stream = std::move(stream).value();
  // The sections are the business of who made the side.
  for (;;) {
    auto record = feed.shared_->stream->next();
    if (!record.ok()) return record.error();
    if (record->has_value() && std::holds_alternative<log::Section>((*record)->body)) continue;
    feed.shared_->source =
        std::make_unique<LogSource>(*feed.shared_->stream, std::move(record).value(), side.re_read);
    return feed;
  }
}

const Next& Feed::peek(hv::Machine& machine) { return peek_at(machine, at_); }

std::optional<uint64_t> Feed::epoch_ahead(hv::Machine& machine) {
  constexpr uint64_t kRecords = 4096;
  for (uint64_t i = 0; i < kRecords; ++i) {
    const Next& next = peek_at(machine, at_ + i);
    if (std::holds_alternative<EndOfInputs>(next)) return std::nullopt;
    const auto* check = std::get_if<EpochCheck>(&next);
    if (check != nullptr && check->expected) return check->epoch;
  }
  return std::nullopt;
}

const Next& Feed::peek_at(hv::Machine& machine, uint64_t at) {
  Shared& s = *shared_;
  US_CHECK(at >= s.kept_from, "a place before the mark");
  while (at >= s.kept_from + s.kept.size()) {
    if (!s.kept.empty() && std::holds_alternative<EndOfInputs>(s.kept.back())) return s.kept.back();
    s.kept.push_back(s.source->next(machine));
    s.kept_bytes += bytes_of(s.kept.back());
  }
  return s.kept[at - s.kept_from];
}

void Feed::pop() {
  Shared& s = *shared_;
  ++at_;
  while (!s.marked && s.kept.size() > 1 && s.kept_from < at_) {
    s.kept_bytes -= bytes_of(s.kept.front());
    s.kept.pop_front();
    ++s.kept_from;
  }
}

void Feed::mark() { shared_->marked = true; }

uint64_t Feed::kept_bytes() const { return shared_->kept_bytes; }

std::optional<log::End> Feed::end_record() const {
  const auto& record = shared_->source->end_record();
  if (!record) return std::nullopt;
  return std::get<log::End>(record->body);
}

std::optional<UserError> Feed::error() const {
  if (shared_->kept.empty()) return std::nullopt;
  const auto* end = std::get_if<EndOfInputs>(&shared_->kept.back());
  return end != nullptr && end->kind == EndKind::kLogUnusable ? end->error : std::nullopt;
}

}  // namespace us::replay
