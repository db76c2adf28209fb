#include "tests/unit/diverge/guest.h"

#include "hv/boot/load_context.h"
#include "hv/boot_vcpu.h"
#include "logchannel/memory_log.h"
#include "replay-engine/diverge/walker.h"
#include "replay-engine/recorder.h"

namespace us::replay::test {
namespace {

constexpr uint64_t kTicksPerBranch = 40;
constexpr uint64_t kAnchorsAKey = 7;

Result<std::unique_ptr<hv::Machine>> payload_machine(hv::OutputSink& world) {
  auto made = hv::Machine::create({.memory_bytes = 8u << 20, .platform = {}}, world);
  if (!made.ok()) return made.error();
  US_CHECK(
      (*made)->memory().write(GuestPhys(kEntry), {diverge_payload_begin, diverge_payload_end}));
  hv::BootState state = hv::long_mode_state((*made)->memory(), kEntry);
  state.gpr[14] = kRounds;
  hv::enter_boot_state((*made)->vcpu(), state);
  return made;
}

// What comes from outside, at counts of branches instead of times.
class Script final : public InputSource {
 public:
  explicit Script(std::vector<Fault> plan) : faults_(std::move(plan)) {}

  Next next(hv::Machine& machine) override {
    if (waiting_.empty()) {
      const Branches to((++anchors_) * kAnchorBranches);
      if (!run(machine, to)) return EndOfInputs{EndKind::kGuestPoweredOff, "powered off"};
      fill(machine.point());
    }
    Next next = std::move(waiting_.front());
    waiting_.pop_front();
    return next;
  }

 private:
  bool run(hv::Machine& machine, Branches to) {
    while (machine.point().branches < to) {
      if (machine.power().state != hv::PowerState::kRunning) return false;
      if (faults_.wants_steps(machine)) {
        faults_.step(machine);
      } else {
        machine.run({.alarm = std::min(to, faults_.next_at())});
      }
    }
    return true;
  }

  void fill(const hv::ExecutionPoint& here) {
    const GuestTsc now(here.branches.value * kTicksPerBranch);
    waiting_.push_back(StampedInput{
        here, hv::AnchorInput{{here.branches, now, kTicksPerBranch << 32, now + 4'000'000}}});
    if (anchors_ % kAnchorsAKey == 0)
      waiting_.push_back(StampedInput{here, hv::ConsoleInput{0, {'k'}}});
    if (anchors_ % kAnchorsAnEpoch == 0) {
      const uint64_t epoch = anchors_ / kAnchorsAnEpoch;
      waiting_.push_back(
          EpochCheck{.point = here, .epoch = epoch, .with_memory = epoch % 4 == 0, .expected = {}});
    }
  }

  FaultInjector faults_;
  std::deque<Next> waiting_;
  uint64_t anchors_ = 0;
};

// A stream that owns what it reads.
class OwningStream final : public log::LogStream {
 public:
  explicit OwningStream(Bytes bytes) : bytes_(std::move(bytes)), stream_(bytes_) {}
  Result<std::optional<log::Record>> next() override { return stream_.next(); }
  LogPosition position() const override { return stream_.position(); }
  log::StreamEnd end() const override { return stream_.end(); }

 private:
  const Bytes bytes_;
  log::MemoryStream stream_;
};

}  // namespace

Bytes record(const RecordOptions& options) {
  NoOutputs world;
  auto machine = payload_machine(world);
  US_CHECK(machine.ok());
  log::MemorySink sink({.flush_bytes = 512});
  std::unique_ptr<Witness> witness;
  if (options.traced) {
    auto started = Witness::start(**machine, {.check = true,
                                              .buffer_bytes = options.trace_buffer,
                                              .variation_seed = options.variation_seed});
    US_CHECK(started.ok());
    witness = std::move(started).value();
  }
  Recorder recorder(sink, {}, witness.get());
  Script script(options.plan);
  Lander lander;
  const EndOfInputs end = run_loop(**machine, script, lander, &recorder);
  recorder.finish(**machine, end);
  US_CHECK(sink.flush().ok());
  return sink.bytes();
}

Bytes edited(const Bytes& log, const std::function<void(std::vector<log::Record>&)>& edit) {
  log::MemoryStream stream(log);
  std::vector<log::Record> records;
  for (;;) {
    auto record = stream.next();
    US_CHECK(record.ok());
    if (!record->has_value()) break;
    records.push_back(std::move(**record));
  }
  edit(records);
  log::MemorySink sink({.flush_bytes = 4096});
  for (const log::Record& record : records) sink.append(record);
  US_CHECK(sink.flush().ok());
  return sink.bytes();
}

Side side_of(const Bytes& log, std::vector<Fault> plan, const char* name) {
  return {.name = name,
          .open_log = [log]() -> Result<std::unique_ptr<log::LogStream>> {
            return std::unique_ptr<log::LogStream>(std::make_unique<OwningStream>(log));
          },
          .make_machine = payload_machine,
          .plan = std::move(plan)};
}

uint64_t epoch_of(const Bytes& log, uint64_t branch) {
  log::MemoryStream stream(log);
  uint64_t epoch = 1;
  for (;;) {
    const auto record = stream.next();
    US_CHECK(record.ok());
    if (!record->has_value()) return epoch;
    const auto* digest = std::get_if<log::StateDigest>(&(*record)->body);
    if (digest != nullptr && (*record)->at.branches < branch) epoch = digest->epoch + 1;
  }
}

std::optional<TrueFork> true_fork(const Side& a, const Side& b, uint64_t from_branch) {
  auto left = Walker::start(a), right = Walker::start(b);
  US_CHECK(left.ok() && right.ok());
  for (Walker* walker : {left->get(), right->get()})
    while (walker->run(Branches(from_branch)) == WalkStop::kEpoch) walker->pass_epoch();
  for (;;) {
    const hv::ExecutionPoint before = (*left)->machine().point();
    const WalkStop in_a = (*left)->step(), in_b = (*right)->step();
    const uint64_t to_a = (*left)->machine().point().rip, to_b = (*right)->machine().point().rip;
    if (to_a != to_b) return TrueFork{before, to_a, to_b};
    if (in_a != WalkStop::kStepped || in_b != WalkStop::kStepped) return std::nullopt;
  }
}

}  // namespace us::replay::test
