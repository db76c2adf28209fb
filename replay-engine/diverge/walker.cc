#include "replay-engine/diverge/walker.h"

#include <cstring>

#include "hv/snapshot.h"

namespace us::replay {
namespace {

const hv::ExecutionPoint& point_of(const Next& next) {
  if (const auto* check = std::get_if<EpochCheck>(&next)) return check->point;
  return std::get<StampedInput>(next).point;
}

bool is_end(const Next& next) { return std::holds_alternative<EndOfInputs>(next); }

}  // namespace

Walker::Walker(std::unique_ptr<NoOutputs> outputs, std::unique_ptr<hv::Machine> machine, Feed feed,
               FaultInjector faults, LandingProfile profile)
    : outputs_(std::move(outputs)),
      machine_(std::move(machine)),
      feed_(std::move(feed)),
      faults_(std::move(faults)),
      lander_(std::move(profile)) {}

Result<std::unique_ptr<Walker>> Walker::start(const Side& side, const WalkOptions& options) {
  auto outputs = std::make_unique<NoOutputs>();
  auto feed = Feed::open(side);
  if (!feed.ok()) return feed.error();
  auto machine = side.make_machine(*outputs);
  if (!machine.ok()) return machine.error();
  LandingProfile profile;
  if (options.with_counter && side.profile) profile = landing_profile(*side.profile, **machine);
  return std::unique_ptr<Walker>(new Walker(std::move(outputs), std::move(machine).value(),
                                            std::move(feed).value(), FaultInjector(side.plan),
                                            std::move(profile)));
}

WalkStop Walker::lost(LandingVerdict verdict, const hv::ExecutionPoint& target) {
  landing_ = {.verdict = verdict, .reached = machine_->point(), .target = target};
  return WalkStop::kLost;
}

WalkStop Walker::run(Branches branches) {
  for (;;) {
    const Next& next = feed_.peek(*machine_);
    if (const auto* end = std::get_if<EndOfInputs>(&next)) {
      end_ = *end;
      return WalkStop::kEnd;
    }
    const hv::ExecutionPoint point = point_of(next);
    if (at_target(*machine_, LandingTarget{point})) {
      if (std::holds_alternative<EpochCheck>(next)) {
        const auto& check = std::get<EpochCheck>(next);
        if (check.expected) return WalkStop::kEpoch;
        if (check.expected_trace) recorded_trace_ = check.expected_trace;
      } else {
        machine_->apply(std::get<StampedInput>(next).input);
        ++inputs_;
      }
      feed_.pop();
      continue;
    }
    if (machine_->point().branches >= branches) return WalkStop::kBranches;
    if (const auto stop = advance(point, branches)) return *stop;
  }
}

// Some way on towards the next input's point, a fault's place or the count asked for.
std::optional<WalkStop> Walker::advance(const hv::ExecutionPoint& point, Branches branches) {
  hv::MachineStop stop{};
  if (faults_.wants_steps(*machine_)) {
    const uint64_t done = faults_.done();
    stop = faults_.step(*machine_);
    if (faults_.done() != done) return std::nullopt;
  } else if (const Branches bound = std::min(branches, faults_.next_at()); point.branches < bound) {
    const uint64_t steps = lander_.counters().steps;
    landing_ = lander_.land(*machine_, point);
    if (landings_.size() < kLandingSamplesMax)
      landings_.push_back({point.branches.value, lander_.counters().steps - steps});
    return landing_.ok() ? std::nullopt : std::optional(WalkStop::kLost);
  } else {
    stop = machine_->run({.alarm = bound});
  }
  switch (stop) {
    case hv::MachineStop::kIdle:
      if (at_target(*machine_, LandingTarget{point})) return std::nullopt;
      return lost(LandingVerdict::kIdleEarly, point);
    case hv::MachineStop::kPower:
    case hv::MachineStop::kShutdown:
      if (at_target(*machine_, LandingTarget{point})) return std::nullopt;
      return lost(LandingVerdict::kGuestEnded, point);
    default: return std::nullopt;
  }
}

// Inputs whose point is here; true if there was one. Epoch ends here are passed over.
bool Walker::apply_due() {
  bool any = false;
  for (;;) {
    const Next& next = feed_.peek(*machine_);
    if (is_end(next) || !at_target(*machine_, LandingTarget{point_of(next)})) return any;
    if (const auto* input = std::get_if<StampedInput>(&next)) {
      machine_->apply(input->input);
      ++inputs_;
    }
    feed_.pop();
    any = true;
  }
}

WalkStop Walker::step() {
  if (!strayed_) {
    apply_due();
    const Next& next = feed_.peek(*machine_);
    if (const auto* end = std::get_if<EndOfInputs>(&next)) {
      end_ = *end;
      return WalkStop::kEnd;
    }
    const hv::ExecutionPoint here = machine_->point();
    const hv::ExecutionPoint& point = point_of(next);
    strayed_ = here.branches > point.branches ||
               (point.instructions.value != 0 && here.instructions > point.instructions);
  }
  const hv::ExecutionPoint before = machine_->point();
  const hv::MachineStop stop =
      faults_.wants_steps(*machine_) ? faults_.step(*machine_) : machine_->step();
  const bool stuck = stop == hv::MachineStop::kIdle || stop == hv::MachineStop::kPower ||
                     stop == hv::MachineStop::kShutdown;
  if (!stuck || machine_->point() != before) return WalkStop::kStepped;
  const Next& next = feed_.peek(*machine_);
  return lost(
      stop == hv::MachineStop::kIdle ? LandingVerdict::kIdleEarly : LandingVerdict::kGuestEnded,
      is_end(next) ? machine_->point() : point_of(next));
}

const EpochCheck& Walker::epoch() { return std::get<EpochCheck>(feed_.peek(*machine_)); }

void Walker::pass_epoch() {
  feed_.pop();
  recorded_trace_.reset();
}

bool Walker::trace(std::function<void(ByteSpan)> raw) {
  auto started = Witness::start(*machine_, {.check = true, .raw = std::move(raw)});
  if (started.ok()) witness_ = std::move(started).value();
  return traced();
}

std::string Walker::lost_text() const {
  const auto text = [](const hv::ExecutionPoint& p) {
    return fmt::format("branch {}, instruction {}, rip {:#x}", p.branches.value,
                       p.instructions.value, p.rip);
  };
  const char* what = "it never came to";
  switch (landing_.verdict) {
    case LandingVerdict::kGuestEnded: what = "the guest ended before"; break;
    case LandingVerdict::kIdleEarly: what = "the guest went idle before"; break;
    case LandingVerdict::kOvershoot: what = "it went past"; break;
    case LandingVerdict::kMiscount: what = "the counter miscounted on the way to"; break;
    default: break;
  }
  return fmt::format("{} the next place in its log ({}), it is at {}", what, text(landing_.target),
                     text(landing_.reached));
}

std::shared_ptr<const Walker::Checkpoint> Walker::checkpoint() {
  auto kept = std::make_shared<Checkpoint>();
  const Status done = hv::write_snapshot(*machine_, [&kept](ByteSpan bytes) -> Status {
    kept->snapshot.insert(kept->snapshot.end(), bytes.begin(), bytes.end());
    return Done{};
  });
  US_CHECK(done.ok());
  feed_.mark();
  kept->feed = feed_;
  kept->faults = faults_;
  return kept;
}

Result<std::unique_ptr<Walker>> Walker::resume(const Checkpoint& from) {
  auto outputs = std::make_unique<NoOutputs>();
  size_t at = 0;
  auto machine = hv::read_snapshot(
      [&](std::span<uint8_t> out) {
        if (from.snapshot.size() - at < out.size()) return false;
        std::memcpy(out.data(), from.snapshot.data() + at, out.size());
        at += out.size();
        return true;
      },
      *outputs);
  if (!machine.ok()) return machine.error();
  return std::unique_ptr<Walker>(
      new Walker(std::move(outputs), std::move(machine).value(), from.feed, from.faults, {}));
}

}  // namespace us::replay
