#include "replay-engine/diverge/narrow.h"

#include <fmt/format.h>

#include "replay-engine/diverge/fork.h"
#include "replay-engine/diverge/fork_trace.h"

namespace us::replay {
namespace {

using WalkerPtr = std::unique_ptr<Walker>;

constexpr uint64_t kStrides[] = {16384, 512, 16};  // branches
constexpr uint64_t kStepsToEffect = 4'000'000;
// A step costs less than the digests after it; where no branch ends the search soon, registers are
// looked at every time and the rest now and then.
constexpr uint64_t kStepsWithDigests = 4096, kDigestsEvery = 256;
constexpr uint64_t kStepsToFork = 300'000;
// What may be kept of a log while looking ahead.
constexpr uint64_t kKeptBytesMax = 256u << 20;

// The last epoch that agreed, passed.
Result<WalkerPtr> walker_after(const Side& side, uint64_t epoch) {
  auto walker = Walker::start(side);
  if (!walker.ok() || epoch == 0) return walker;
  for (;;) {
    if ((*walker)->run_to_epoch() != WalkStop::kEpoch) return walker;
    const bool there = (*walker)->epoch().epoch >= epoch;
    (*walker)->pass_epoch();
    if (there) return walker;
  }
}

WalkStop run_past_epochs(Walker& walker, Branches to, uint64_t& epochs) {
  for (;;) {
    const WalkStop stop = walker.run(to);
    if (stop != WalkStop::kEpoch) return stop;
    walker.pass_epoch();
    ++epochs;
  }
}

bool states_differ(Walker& a, Walker& b) {
  return a.machine().point() != b.machine().point() ||
         digests_of(a.machine()) != digests_of(b.machine());
}

// By the trace of the stride; without one other counts of instructions at one count of branches
// mean another path.
bool paths_differ(Walker& a, Walker& b) {
  const hv::ExecutionPoint here = a.machine().point(), there = b.machine().point();
  const bool apart = here.branches != there.branches || here.instructions != there.instructions ||
                     here.rip != there.rip;
  if (!a.traced() || !b.traced()) return apart;
  const ipt::EpochDigest left = a.cut_trace(0), right = b.cut_trace(0);
  return apart || left.combined() != right.combined();
}

enum class Search : uint8_t { kEffect, kFork };

bool differ(Search search, Walker& a, Walker& b) {
  const bool paths = paths_differ(a, b);
  return paths || (search == Search::kEffect && states_differ(a, b));
}

class Narrower {
 public:
  Narrower(std::shared_ptr<const Walker::Checkpoint> a, std::shared_ptr<const Walker::Checkpoint> b,
           const PassResult& pass, const DivergeOptions& options)
      : from_a_(std::move(a)), from_b_(std::move(b)), pass_(pass), options_(options) {}

  Result<Narrowed> run() {
    const Status found = narrow();
    if (!found.ok()) return found.error();
    if (result_.fork)
      if (const Status decoded = decode(*result_.fork); !decoded.ok()) return decoded.error();
    const Status repeated = repeat();
    if (!repeated.ok()) return repeated.error();
    return std::move(result_);
  }

 private:
  Status narrow() {
    const auto at = closest(Search::kEffect, pass_.last_agreeing.point.branches, ~uint64_t{0});
    if (!at.ok()) return at.error();
    if (!*at) {
      result_.notes.push_back(
          "executed again from a copy of the last agreeing state, the sides do not part");
      return Done{};
    }
    if (Status s = go_to(**at); !s.ok()) return s;
    step_to_effect();
    if (!result_.effect) return Done{};
    const Branches effect_at = a_->machine().point().branches;
    if (step_to_fork()) return Done{};
    const auto fork_at = closest(Search::kFork, effect_at, options_.look_ahead_epochs);
    if (!fork_at.ok()) return fork_at.error();
    if (!*fork_at) {
      result_.notes.push_back(fmt::format("within {} epochs after it both sides take the same path",
                                          options_.look_ahead_epochs));
      return Done{};
    }
    if (Status s = go_to(**fork_at); !s.ok()) return s;
    step_to_fork();
    return Done{};
  }

  Status go_to(Branches at) {
    auto a = Walker::resume(*from_a_), b = Walker::resume(*from_b_);
    if (!a.ok()) return a.error();
    if (!b.ok()) return b.error();
    a_ = std::move(a).value();
    b_ = std::move(b).value();
    uint64_t epochs = 0;
    run_past_epochs(*a_, at, epochs);
    run_past_epochs(*b_, at, epochs);
    return Done{};
  }

  // The last stride of the finest size at whose beginning the sides agree, and at whose end not.
  Result<std::optional<Branches>> closest(Search search, Branches from, uint64_t epochs_max) {
    for (const uint64_t stride : kStrides) {
      const auto found = scan(search, from, stride, epochs_max);
      if (!found.ok() || !*found) return found;
      from = **found;
    }
    return std::optional(from);
  }

  Result<std::optional<Branches>> scan(Search search, Branches from, uint64_t stride,
                                       uint64_t epochs_max) {
    if (Status s = go_to(from); !s.ok()) return s.error();
    if (a_->trace()) b_->trace();
    for (uint64_t epochs = 0; epochs <= epochs_max;) {
      if (options_.stop != nullptr && *options_.stop) break;
      if (options_.progress) options_.progress("narrowing", a_->machine().point());
      uint64_t unused = 0;
      const WalkStop in_a = run_past_epochs(*a_, from + stride, epochs);
      const WalkStop in_b = run_past_epochs(*b_, from + stride, unused);
      if (in_a != in_b || differ(search, *a_, *b_)) return std::optional(from);
      if (in_a != WalkStop::kBranches || a_->feed().kept_bytes() > kKeptBytesMax) break;
      from += stride;
    }
    return std::optional<Branches>();
  }

  void step_to_effect() {
    PathRing ring;
    for (uint64_t i = 0; i < kStepsToEffect; ++i) {
      const hv::ExecutionPoint before = a_->machine().point();
      const WalkStop in_a = a_->step(), in_b = b_->step();
      const bool cheap = a_->machine().point() != b_->machine().point() ||
                         a_->machine().vcpu().registers() != b_->machine().vcpu().registers();
      const bool look = cheap || i < kStepsWithDigests || i % kDigestsEvery == 0;
      if (look && states_differ(*a_, *b_)) return note_effect(before, ring);
      ring.add(before, a_->machine().point());
      if (in_a != WalkStop::kStepped && in_b != WalkStop::kStepped) return;
    }
  }

  void note_effect(const hv::ExecutionPoint& before, const PathRing& ring) {
    result_.symbols = options_.symbols;
    if (result_.symbols == nullptr)
      if (auto own = Symbols::from_guest(a_->machine().memory()))
        result_.symbols = std::make_shared<const Symbols>(std::move(*own));
    result_.effect =
        FirstEffect{.before = before,
                    .after_a = a_->machine().point(),
                    .after_b = b_->machine().point(),
                    .code = disassemble(a_->machine(), before.rip),
                    .differs = differing(digests_of(a_->machine()), digests_of(b_->machine())),
                    .state = state_difference(a_->machine(), b_->machine())};
    if (result_.effect->after_a.rip == result_.effect->after_b.rip) return;
    result_.fork = fork_here(before, *a_, *b_, ring);
  }

  // True: found, here or before.
  bool step_to_fork() {
    if (result_.fork) return true;
    PathRing ring;
    for (uint64_t i = 0; i < kStepsToFork; ++i) {
      const hv::ExecutionPoint before = a_->machine().point();
      const WalkStop in_a = a_->step(), in_b = b_->step();
      if (a_->machine().point().rip != b_->machine().point().rip) {
        result_.fork = fork_here(before, *a_, *b_, ring);
        return true;
      }
      ring.add(before, a_->machine().point());
      if (in_a != WalkStop::kStepped || in_b != WalkStop::kStepped) return false;
    }
    return false;
  }

  // The traces from a little before the fork to a little behind it, and the code as it was then.
  Status decode(Fork& fork) {
    constexpr uint64_t kBefore = 8, kBehind = 8;  // branches
    const uint64_t agreed = pass_.last_agreeing.point.branches.value;
    const Branches from(
        std::max(agreed, fork.at.branches.value - std::min(fork.at.branches.value, kBefore)));
    if (Status s = go_to(from); !s.ok()) return s;
    Bytes trace_a, trace_b;
    const auto into = [](Bytes& out) {
      return [&out](ByteSpan bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); };
    };
    if (!a_->trace(into(trace_a)) || !b_->trace(into(trace_b))) return Done{};
    uint64_t epochs = 0;
    run_past_epochs(*a_, fork.at.branches + kBehind, epochs);
    run_past_epochs(*b_, fork.at.branches + kBehind, epochs);
    a_->end_trace();
    b_->end_trace();
    if (Status s = go_to(from); !s.ok()) return s;
    decode_fork(fork, trace_a, trace_b, a_->machine(), b_->machine());
    return Done{};
  }

  Status repeat() {
    for (unsigned i = 0; i < options_.repeat; ++i) {
      if (options_.stop != nullptr && *options_.stop) break;
      if (Status s = go_to(pass_.last_agreeing.point.branches); !s.ok()) return s;
      if (a_->trace()) b_->trace();
      const WalkStop in_a = a_->run_to_epoch(), in_b = b_->run_to_epoch();
      const StateDigests a = digests_of(a_->machine()), b = digests_of(b_->machine());
      ++result_.repetition.runs;
      if (in_a == in_b && a == b && !paths_differ(*a_, *b_)) {
        ++result_.repetition.gone;
      } else if (!pass_.seen_a || !pass_.seen_b || (*pass_.seen_a == a && *pass_.seen_b == b)) {
        ++result_.repetition.same;
      } else {
        ++result_.repetition.elsewhere;
      }
    }
    return Done{};
  }

  const std::shared_ptr<const Walker::Checkpoint> from_a_, from_b_;
  const PassResult& pass_;
  const DivergeOptions& options_;
  WalkerPtr a_, b_;
  Narrowed result_;
};

}  // namespace

Result<Narrowed> narrow(const Side& a, const Side& b, const PassResult& pass,
                        const DivergeOptions& options) {
  auto left = walker_after(a, pass.last_agreeing.epoch);
  if (!left.ok()) return left.error();
  auto right = walker_after(b, pass.last_agreeing.epoch);
  if (!right.ok()) return right.error();
  const auto from_a = (*left)->checkpoint(), from_b = (*right)->checkpoint();
  left->reset();
  right->reset();
  return Narrower(from_a, from_b, pass, options).run();
}

Result<Repetition> repeat_against_log(const Side& a, const PassResult& pass,
                                      const DivergeOptions& options) {
  auto walker = walker_after(a, pass.last_agreeing.epoch);
  if (!walker.ok()) return walker.error();
  const auto from = (*walker)->checkpoint();
  Repetition found;
  for (unsigned i = 0; i < options.repeat; ++i) {
    if (options.stop != nullptr && *options.stop) break;
    auto again = Walker::resume(*from);
    if (!again.ok()) return again.error();
    ++found.runs;
    const bool there = (*again)->run_to_epoch() == WalkStop::kEpoch;
    const StateDigests seen = digests_of((*again)->machine());
    if (there && differing(*(*again)->epoch().expected, seen).empty()) {
      ++found.gone;
    } else if (!pass.seen_a || *pass.seen_a == seen) {
      ++found.same;
    } else {
      ++found.elsewhere;
    }
  }
  return found;
}

}  // namespace us::replay
