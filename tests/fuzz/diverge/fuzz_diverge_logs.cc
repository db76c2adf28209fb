// Any bytes as the records of two logs that `diverge` is given: the first two say where the second
// begins. They are compared, read as the inputs of an execution, and reported; what is reported can
// be printed and is JSON, and a log does not differ from itself.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "hv/machine.h"
#include "logchannel/record_codec.h"
#include "replay-engine/diverge/log_compare.h"
#include "replay-engine/diverge/report.h"
#include "replay-engine/diverge/side.h"

namespace us::replay {
namespace {

UserError damaged() {
  return {"LOG-001", ExitCode::kLogUnreadable, "a record is damaged", "", "", ""};
}

// Records one after another, as of one frame without end.
class RecordStream final : public log::LogStream {
 public:
  explicit RecordStream(ByteSpan bytes) : in_(bytes) {}

  Result<std::optional<log::Record>> next() override {
    auto record = decoder_.decode(in_);
    if (!record.ok()) return damaged();
    if (record->has_value()) ++position_.value;
    return std::move(*record);
  }
  LogPosition position() const override { return position_; }
  log::StreamEnd end() const override { return {.ended = in_.at_end()}; }

 private:
  ByteReader in_;
  log::RecordDecoder decoder_;
  LogPosition position_;
};

Side side_of(const char* name, ByteSpan bytes) {
  return {.name = name, .open_log = [bytes]() -> Result<std::unique_ptr<log::LogStream>> {
            return std::unique_ptr<log::LogStream>(std::make_unique<RecordStream>(bytes));
          }};
}

hv::Machine& any_machine() {
  static NoOutputs outputs;
  static const auto machine = [] {
    auto made = hv::Machine::create({.memory_bytes = 1 << 20}, outputs);
    US_CHECK(made.ok());
    return std::move(made).value();
  }();
  return *machine;
}

// To its end, and once more from a copy made half way.
void read_inputs(const Side& side) {
  auto feed = Feed::open(side);
  if (!feed.ok()) return;
  hv::Machine& machine = any_machine();
  const auto read = [&](Feed& from, uint64_t most) {
    uint64_t n = 0;
    while (n < most && !std::holds_alternative<EndOfInputs>(from.peek(machine))) {
      from.pop();
      ++n;
    }
    return n;
  };
  read(*feed, 10);
  feed->mark();
  Feed again = *feed;
  (void)feed->epoch_ahead(machine);
  const uint64_t n = read(*feed, ~0ull);
  US_CHECK(read(again, ~0ull) == n);
  (void)feed->end_record();
  (void)feed->error();
}

bool can_be_printed(const std::string& text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return c == '\n' || (c >= 0x20 && c < 0x7f); });
}

void report(const Side& a, const Side& b, const LogComparison& found) {
  DivergeReport report{.verdict = DivergeVerdict::kInput, .name_a = a.name, .name_b = b.name};
  report.trace = found.trace;
  report.input = found.input;
  report.log_a = found.context_a;
  report.log_b = found.context_b;
  report.log_notes = found.notes;
  if (found.digest) {
    report.first_differing = {.epoch = found.digest->epoch, .point = found.digest->at};
    report.differs = found.digest->differs;
    if (report.log_a.lines.empty()) report.log_a = log_context(a, found.digest->epoch);
  }
  if (found.damage) report.error = found.damage->error;
  if (found.end_a) report.branches_in_all = found.end_a->branches;
  rank_causes(report);
  US_CHECK(can_be_printed(to_text(report)));
  US_CHECK(!to_json(report).dump().empty());
}

}  // namespace
}  // namespace us::replay

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace us::replay;
  if (size < 2) return 0;
  const us::Bytes bytes(data + 2, data + size);
  const size_t split = std::min<size_t>(bytes.size(), data[0] | data[1] << 8);
  const Side a = side_of("a", us::ByteSpan(bytes).first(split));
  const Side b = side_of("b", us::ByteSpan(bytes).subspan(split));
  const auto found = compare_logs(a, b);
  US_CHECK(found.ok());
  report(a, b, *found);
  const auto same = compare_logs(a, a);
  US_CHECK(same.ok() && !same->input && !same->digest && !same->trace.first_differing);
  report(a, a, *same);
  read_inputs(a);
  read_inputs(b);
  return 0;
}
