#include "replay-engine/diverge/log_compare.h"

#include <deque>
#include <fmt/format.h>
#include <map>

#include "ipt/epoch_digest.h"
#include "logchannel/inspect.h"
#include "logchannel/printable.h"

namespace us::replay {
namespace {

// Trace digests of one side that wait for the other's; a hostile log may hold one and never the
// other.
constexpr size_t kTracesWaiting = 64;
constexpr size_t kNotesMax = 4;

hv::ExecutionPoint point_of(const log::Record& record) {
  return {Branches(record.at.branches), record.at.rip, record.at.rcx.value_or(0),
          Instructions(record.at.instructions)};
}

// Reads one log: events one by one, trace digests to the side.
class Cursor {
 public:
  static Result<Cursor> open(const Side& side) {
    auto stream = side.open_log();
    if (!stream.ok()) return stream.error();
    Cursor cursor;
    cursor.stream_ = std::move(stream).value();
    return cursor;
  }

  // The next record that is no section and no trace digest; empty at the end and at damage.
  std::optional<log::Record> next(std::map<uint64_t, Bytes>* traces) {
    while (!error_) {
      auto record = stream_->next();
      if (!record.ok()) {
        error_ = record.error();
        break;
      }
      if (!record->has_value()) break;
      if (std::holds_alternative<log::Section>((*record)->body)) continue;
      if (auto* trace = std::get_if<log::PtDigest>(&(*record)->body)) {
        if (traces != nullptr && traces->size() < kTracesWaiting)
          (*traces)[trace->epoch] = std::move(trace->blob);
        continue;
      }
      if (const auto* digest = std::get_if<log::StateDigest>(&(*record)->body))
        epoch_ = digest->epoch;
      if (const auto* end = std::get_if<log::End>(&(*record)->body)) end_ = *end;
      const auto* marker = std::get_if<log::Marker>(&(*record)->body);
      if (marker != nullptr && marker->kind == log::MarkerKind::kNote && notes_.size() < kNotesMax)
        notes_.push_back(log::printable(marker->text, log::kTextBytesMax));
      remember(**record);
      return std::move(**record);
    }
    return std::nullopt;
  }

  uint64_t epoch() const { return epoch_; }
  const std::vector<std::string>& notes() const { return notes_; }
  const std::optional<UserError>& error() const { return error_; }
  const std::optional<log::End>& end() const { return end_; }

  // The lines so far, the last of them marked if asked for, and a few more.
  LogContext context(bool mark_last) {
    LogContext context{.lines = {lines_.begin(), lines_.end()}};
    if (mark_last && !context.lines.empty()) context.marked = context.lines.size() - 1;
    for (size_t i = 0; i < kContextAfter && next(nullptr); ++i)
      context.lines.push_back(lines_.back());
    return context;
  }

 private:
  void remember(const log::Record& record) {
    lines_.push_back(log::record_text(record, stream_->position()));
    if (lines_.size() > kContextBefore + 1) lines_.pop_front();
  }

  std::unique_ptr<log::LogStream> stream_;
  std::deque<std::string> lines_;
  std::vector<std::string> notes_;
  std::optional<UserError> error_;
  std::optional<log::End> end_;
  uint64_t epoch_ = 0;
};

std::string describe(const log::Record& record) {
  return fmt::format("{} at branch {} (instruction {}, rip {:#x})",
                     log::type_name(log::type_of(record.body)), record.at.branches,
                     record.at.instructions, record.at.rip);
}

std::string distance(const log::Record& a, const log::Record& b) {
  const bool counted = a.at.instructions != 0 && b.at.instructions != 0;
  const uint64_t from = counted ? a.at.instructions : a.at.branches;
  const uint64_t to = counted ? b.at.instructions : b.at.branches;
  const uint64_t n = to >= from ? to - from : from - to;
  const char* unit = counted  ? n == 1 ? "instruction" : "instructions"
                     : n == 1 ? "branch"
                              : "branches";
  return fmt::format("{} {} {}", n, unit, to >= from ? "later" : "earlier");
}

std::string difference(const std::optional<log::Record>& a, const std::optional<log::Record>& b) {
  if (!a) return fmt::format("a's log is over, b's goes on with {}", describe(*b));
  if (!b) return fmt::format("b's log is over, a's goes on with {}", describe(*a));
  if (a->body.index() != b->body.index())
    return fmt::format("a has {}, b has {}", describe(*a), describe(*b));
  if (a->body == b->body)
    return fmt::format("the same {}, in b {}", log::type_name(log::type_of(a->body)),
                       distance(*a, *b));
  if (a->at == b->at) return fmt::format("another content of the {}", describe(*a));
  return fmt::format("a has {}, b has {}", describe(*a), describe(*b));
}

// Digests and final words are compared apart: they are what the inputs lead to.
bool same_input(const log::Record& a, const log::Record& b) {
  if (a.at != b.at || a.body.index() != b.body.index()) return false;
  if (const auto* left = std::get_if<log::StateDigest>(&a.body))
    return left->epoch == std::get<log::StateDigest>(b.body).epoch;
  if (std::holds_alternative<log::End>(a.body)) return true;
  if (std::holds_alternative<log::Marker>(a.body)) return true;
  return a.body == b.body;
}

std::string differing(const log::StateDigest& a, const log::StateDigest& b) {
  std::string text;
  const auto add = [&](bool differs, const char* what) {
    if (differs) text += (text.empty() ? "" : ", ") + std::string(what);
  };
  add(a.registers != b.registers, "registers");
  add(a.devices != b.devices, "devices");
  add(a.memory && b.memory && *a.memory != *b.memory, "memory");
  return text;
}

void note_digest(const log::Record& a, const log::Record& b, LogComparison& found) {
  const auto* left = std::get_if<log::StateDigest>(&a.body);
  if (left == nullptr) return;
  ++found.epochs;
  if (found.digest) return;
  const std::string what = differing(*left, std::get<log::StateDigest>(b.body));
  if (!what.empty()) found.digest = {left->epoch, point_of(a), what};
}

void note_traces(uint64_t epoch, ByteSpan a, ByteSpan b, TraceFinding& found) {
  ByteReader in_a(a), in_b(b);
  const auto left = ipt::decode_epoch_digest(in_a), right = ipt::decode_epoch_digest(in_b);
  note_trace(epoch, left.ok() ? &*left : nullptr, right.ok() ? &*right : nullptr, found);
}

// Pairs up what both sides have said of an epoch's trace.
void match_traces(std::map<uint64_t, Bytes>& a, std::map<uint64_t, Bytes>& b, TraceFinding& found) {
  for (auto left = a.begin(); left != a.end();) {
    const auto right = b.find(left->first);
    if (right == b.end()) {
      ++left;
      continue;
    }
    note_traces(left->first, left->second, right->second, found);
    b.erase(right);
    left = a.erase(left);
  }
  while (a.size() >= kTracesWaiting) a.erase(a.begin());
  while (b.size() >= kTracesWaiting) b.erase(b.begin());
}

}  // namespace

void note_trace(uint64_t epoch, const ipt::EpochDigest* a, const ipt::EpochDigest* b,
                TraceFinding& found) {
  // A later comparison of the same epoch adds to what is known of it.
  const bool again = found.last_compared == epoch;
  found.last_compared = epoch;
  if (!again) ++found.compared;
  const auto first = [&](std::optional<uint64_t>& place) {
    if (!place) place = epoch;
  };
  const auto unknown = [&] {
    if (found.last_unknown != epoch) ++found.unknown;
    found.last_unknown = epoch;
    first(found.first_unknown);
  };
  if (a == nullptr || b == nullptr) return unknown();
  const ipt::Comparison c = ipt::compare(*a, *b);
  switch (c.verdict) {
    case ipt::Verdict::kEqual: return;
    case ipt::Verdict::kUnknown:
    case ipt::Verdict::kIncomparable: return unknown();
    case ipt::Verdict::kCounterMismatch:
      if (!found.first_counter_mismatch && !found.first_differing) found.text = c.text();
      ++found.counter_mismatches;
      return first(found.first_counter_mismatch);
    case ipt::Verdict::kDiffers:
      if (found.first_differing) return;
      found.first_differing = epoch;
      found.text = c.text();
      if (const auto& t = c.differences[static_cast<size_t>(ipt::Stream::kBranches)]) {
        found.branch_first = a->bounds.start.branches + t->first_item + 1;
        found.branch_end = a->bounds.start.branches + t->end_item + 1;
      }
  }
}

Result<LogComparison> compare_logs(const Side& a, const Side& b) {
  auto left = Cursor::open(a), right = Cursor::open(b);
  if (!left.ok()) return left.error();
  if (!right.ok()) return right.error();
  LogComparison found;
  std::map<uint64_t, Bytes> traces_a, traces_b;
  for (uint64_t ordinal = 0;; ++ordinal) {
    const uint64_t epoch = std::min(left->epoch(), right->epoch()) + 1;  // that these belong to
    const auto in_a = left->next(&traces_a), in_b = right->next(&traces_b);
    match_traces(traces_a, traces_b, found.trace);
    if (left->error() || right->error()) {
      const bool a_broken = left->error().has_value();
      found.damage = {a_broken, epoch - 1, a_broken ? *left->error() : *right->error()};
    }
    if (found.damage || (!in_a && !in_b)) break;
    if (!in_a || !in_b || !same_input(*in_a, *in_b)) {
      found.input = {.ordinal = ordinal,
                     .epoch = epoch,
                     .at_a = in_a ? point_of(*in_a) : hv::ExecutionPoint{},
                     .at_b = in_b ? point_of(*in_b) : hv::ExecutionPoint{},
                     .what = difference(in_a, in_b)};
      found.context_a = left->context(in_a.has_value());
      found.context_b = right->context(in_b.has_value());
      break;
    }
    note_digest(*in_a, *in_b, found);
  }
  found.notes = left->notes();
  if (right->notes() != found.notes)
    found.notes.insert(found.notes.end(), right->notes().begin(), right->notes().end());
  found.end_a = left->end();
  found.end_b = right->end();
  return found;
}

LogContext log_context(const Side& side, uint64_t epoch) {
  auto cursor = Cursor::open(side);
  if (!cursor.ok()) return {};
  while (const auto record = cursor->next(nullptr)) {
    const auto* digest = std::get_if<log::StateDigest>(&record->body);
    if (digest != nullptr && digest->epoch >= epoch) return cursor->context(true);
  }
  return cursor->context(false);
}

}  // namespace us::replay
