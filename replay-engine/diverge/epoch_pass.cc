#include "replay-engine/diverge/epoch_pass.h"

#include <fmt/format.h>

#include "replay-engine/diverge/log_compare.h"
#include "replay-engine/record_convert.h"

namespace us::replay {
namespace {

bool by_counter(const LandingResult& landing) {
  return landing.verdict == LandingVerdict::kMiscount ||
         landing.verdict == LandingVerdict::kOvershoot;
}

// Runs walkers in step, an epoch at a time; with one walker only its log is the other side.
class EpochPass {
 public:
  EpochPass(Walker& a, Walker* b, bool with_counter, const DivergeOptions& options)
      : a_(a), b_(b), with_counter_(with_counter), options_(options) {}

  PassResult run() {
    while (next_epoch()) {
    }
    result_.counter_a = a_.lander().health_text();
    result_.landings_a = a_.take_landings();
    if (b_ != nullptr) result_.counter_b = b_->lander().health_text();
    if (b_ != nullptr) result_.landings_b = b_->take_landings();
    result_.log_error = a_.feed().error();
    if (!result_.log_error && b_ != nullptr) result_.log_error = b_->feed().error();
    return std::move(result_);
  }

 private:
  // False: it is decided.
  bool next_epoch() {
    if (options_.stop != nullptr && *options_.stop) return decide(PassOutcome::kStopped);
    const WalkStop in_a = a_.run_to_epoch();
    const WalkStop in_b = b_ != nullptr ? b_->run_to_epoch() : in_a;
    if (options_.progress) options_.progress("executing", a_.machine().point());
    if (in_a == WalkStop::kLost || in_b == WalkStop::kLost) return strayed(in_a, in_b);
    if (in_a != in_b) return ended(in_a, in_b);
    if (in_a == WalkStop::kEnd) return at_end();
    return compare();
  }

  bool decide(PassOutcome outcome) {
    result_.outcome = outcome;
    return false;
  }

  // Whose recorded trace is not the one just made, or that the two just made differ.
  enum class Traces : uint8_t { kNothing, kRecordedA, kRecordedB, kDiffer };

  Traces compare_traces(uint64_t epoch) {
    if (!a_.traced() || (b_ != nullptr && !b_->traced())) return Traces::kNothing;
    const ipt::EpochDigest a = a_.cut_trace(epoch);
    const std::optional<ipt::EpochDigest> b =
        b_ != nullptr ? std::optional(b_->cut_trace(epoch)) : std::nullopt;
    if (b) {
      note_trace(epoch, &a, &*b, result_.trace);
      if (result_.trace.first_differing == epoch) return Traces::kDiffer;
    }
    if (against_log(epoch, a_, a)) return Traces::kRecordedA;
    if (b && against_log(epoch, *b_, *b)) return Traces::kRecordedB;
    return Traces::kNothing;
  }

  bool against_log(uint64_t epoch, const Walker& walker, const ipt::EpochDigest& seen) {
    if (!walker.recorded_trace()) return false;
    ByteReader in(*walker.recorded_trace());
    const auto recorded = ipt::decode_epoch_digest(in);
    note_trace(epoch, recorded.ok() ? &*recorded : nullptr, &seen, result_.trace);
    return result_.trace.first_differing == epoch;
  }

  bool compare() {
    const EpochCheck check = a_.epoch();
    const Traces traces = compare_traces(check.epoch);
    const StateDigests a = digests_of(a_.machine());
    result_.seen_a = a;
    result_.first_differing = {.epoch = check.epoch, .point = check.point};
    std::string recorded = differing(*check.expected, a);
    if (b_ != nullptr) {
      const EpochCheck check_b = b_->epoch();
      const StateDigests b = digests_of(b_->machine());
      result_.seen_b = b;
      result_.differs = differing(a, b);
      if (check_b.point != check.point)
        result_.differs += result_.differs.empty() ? "position" : ", position";
      if (traces == Traces::kDiffer) add_trace(result_.differs);
      if (!result_.differs.empty()) return decide(PassOutcome::kDiffers);
      if (recorded.empty() && traces != Traces::kRecordedA) {
        result_.differs = differing(*check_b.expected, b);
        if (traces == Traces::kRecordedB) add_trace(result_.differs);
        if (!result_.differs.empty()) return decide(PassOutcome::kRecordedB);
      }
    }
    if (traces == Traces::kRecordedA) add_trace(recorded);
    if (!recorded.empty()) {
      result_.differs = recorded;
      return decide(PassOutcome::kRecordedA);
    }
    result_.seen_a.reset();
    result_.seen_b.reset();
    ++result_.epochs;
    result_.last_agreeing = {.epoch = check.epoch, .point = check.point};
    a_.pass_epoch();
    if (b_ != nullptr) b_->pass_epoch();
    return true;
  }

  static void add_trace(std::string& differs) { differs += differs.empty() ? "trace" : ", trace"; }

  // In a walk that failed the differing epoch is the one under way.
  void at_lost_place(Walker& lost) {
    const auto ahead = lost.feed().epoch_ahead(lost.machine());
    result_.first_differing = {.epoch = ahead.value_or(result_.last_agreeing.epoch + 1),
                               .point = lost.machine().point()};
  }

  bool strayed(WalkStop in_a, WalkStop in_b) {
    Walker& lost = in_a == WalkStop::kLost ? a_ : *b_;
    at_lost_place(lost);
    result_.detail = fmt::format("{}: {}", &lost == &a_ ? "a" : "b", lost.lost_text());
    if (with_counter_ && by_counter(lost.landing())) {
      result_.error = lost.landing().end().error;
      return decide(PassOutcome::kCounter);
    }
    result_.differs = "position";
    // The other side's place tells whether they are together even so.
    if (b_ != nullptr && in_a == in_b) {
      const std::string both = differing(digests_of(a_.machine()), digests_of(b_->machine()));
      if (both.empty()) {
        result_.detail = "both: " + lost.lost_text();
        return decide(PassOutcome::kEnded);
      }
      result_.differs += ", " + both;
    }
    return decide(b_ != nullptr ? PassOutcome::kDiffers : PassOutcome::kRecordedA);
  }

  bool ended(WalkStop in_a, WalkStop) {
    Walker& short_one = in_a == WalkStop::kEnd ? a_ : *b_;
    at_lost_place(short_one);
    result_.differs = "length";
    result_.detail =
        fmt::format("{}'s log ends: {}", &short_one == &a_ ? "a" : "b", short_one.end().detail);
    return decide(PassOutcome::kEnded);
  }

  bool at_end() {
    const auto whole_a = a_.machine().whole_digest();
    at_lost_place(a_);
    const auto recorded = a_.feed().end_record();
    if (b_ != nullptr) {
      result_.differs = differing(digests_of(a_.machine()), digests_of(b_->machine()));
      if (!result_.differs.empty()) return decide(PassOutcome::kDiffers);
      const auto recorded_b = b_->feed().end_record();
      if (recorded_b && recorded_b->final_digest != whole_a) {
        result_.differs = "final digest";
        return decide(recorded && recorded->final_digest == whole_a ? PassOutcome::kRecordedB
                                                                    : PassOutcome::kRecordedA);
      }
    }
    if (recorded && recorded->final_digest != whole_a) {
      result_.differs = "final digest";
      return decide(PassOutcome::kRecordedA);
    }
    result_.first_differing = {};
    result_.last_agreeing.point = a_.machine().point();
    return decide(PassOutcome::kEqual);
  }

  Walker& a_;
  Walker* b_;
  const bool with_counter_;
  const DivergeOptions& options_;
  PassResult result_;
};

}  // namespace

std::string differing(const EpochDigests& recorded, const StateDigests& seen) {
  constexpr uint64_t kKept = (uint64_t{1} << (8 * kDigestWidth)) - 1;
  std::string text;
  const auto compare = [&](const char* what, uint64_t was, const Digest& is) {
    if (was != (is.low & kKept)) text += (text.empty() ? "" : ", ") + std::string(what);
  };
  compare("registers", recorded.registers, seen.registers);
  compare("devices", recorded.devices, seen.devices);
  if (recorded.memory) compare("memory", *recorded.memory, seen.memory);
  return text;
}

Result<PassResult> run_epochs(const Side& a, const Side& b, const PassOptions& pass,
                              const DivergeOptions& options) {
  auto left = Walker::start(a, {.with_counter = pass.with_counter});
  if (!left.ok()) return left.error();
  auto right = Walker::start(b, {.with_counter = pass.with_counter});
  if (!right.ok()) return right.error();
  if ((*left)->trace()) (*right)->trace();
  return EpochPass(**left, right->get(), pass.with_counter, options).run();
}

Result<PassResult> run_epochs(const Side& a, const PassOptions& pass,
                              const DivergeOptions& options) {
  auto left = Walker::start(a, {.with_counter = pass.with_counter});
  if (!left.ok()) return left.error();
  if (pass.traced) (*left)->trace();
  return EpochPass(**left, nullptr, pass.with_counter, options).run();
}

}  // namespace us::replay
