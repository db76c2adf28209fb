// Digests of the path, recorded and compared: what agrees, what differs, and what says nothing.
#include "replay-engine/witness.h"

#include <doctest/doctest.h>

#include "logchannel/memory_log.h"
#include "replay-engine/live_source.h"
#include "replay-engine/record_convert.h"
#include "replay-engine/recorder.h"
#include "tests/unit/replay/guest.h"

namespace us::replay::test {
namespace {

constexpr uint64_t kRounds = 20'000;

// Timers that change end a run early.
void run_to(hv::Machine& machine, uint64_t branches) {
  for (int i = 0; i < 100 && machine.point().branches.value < branches; ++i)
    machine.run({.alarm = Branches(branches)});
}

std::unique_ptr<Witness> witness_of(hv::Machine& machine, WitnessOptions options = {}) {
  options.check = true;
  auto started = Witness::start(machine, std::move(options));
  REQUIRE(started.ok());
  return std::move(started).value();
}

struct Traced {
  Bytes log;
  uint64_t epochs = 0;
  WitnessCounters counters;
};

Traced record_traced() {
  NoWorld world;
  auto machine = payload_machine(world, kRounds);
  const auto witness = witness_of(*machine);
  hv::WorldEvents events([&machine] { machine->kick(); });
  log::MemorySink sink;
  Recorder recorder(sink, {}, witness.get());
  EndOfInputs end;
  {
    LiveSource source(*machine, events,
                      {.anchor_interval = std::chrono::microseconds(50),
                       .time_limit = std::chrono::seconds(120),
                       .epoch_length = std::chrono::milliseconds(1)});
    Lander lander;
    end = run_loop(*machine, source, lander, &recorder);
  }
  recorder.finish(*machine, end);
  REQUIRE(sink.flush().ok());
  return {sink.bytes(), recorder.epochs(), recorder.traced()};
}

const Traced& recorded() {
  static const Traced once = record_traced();
  return once;
}

struct Replayed {
  EndOfInputs end;
  WitnessCounters counters;
  uint64_t verified = 0;
  Digest final_digest;
};

// Calls `meddle` before each input; null `options`: not traced.
Replayed replay(const WitnessOptions* options,
                const std::function<void(hv::Machine&, uint64_t input)>& meddle = {}) {
  struct Meddler final : InputObserver {
    Verifier& inner;
    const std::function<void(hv::Machine&, uint64_t)>& meddle;
    uint64_t inputs = 0;
    Meddler(Verifier& v, const std::function<void(hv::Machine&, uint64_t)>& m)
        : inner(v), meddle(m) {}
    bool before_apply(hv::Machine& machine, const StampedInput& input, EndOfInputs& why) override {
      if (meddle) meddle(machine, ++inputs);
      return inner.before_apply(machine, input, why);
    }
    bool at_epoch(hv::Machine& machine, const EpochCheck& check, EndOfInputs& why) override {
      return inner.at_epoch(machine, check, why);
    }
  };
  NoWorld world;
  auto machine = payload_machine(world, kRounds);
  std::unique_ptr<Witness> witness;
  if (options != nullptr) witness = witness_of(*machine, *options);
  log::MemoryStream stream(recorded().log);
  auto opening = read_opening(stream);
  REQUIRE(opening.ok());
  LogSource source(stream, std::move(opening->first));
  Verifier verifier(witness.get());
  Meddler meddler(verifier, meddle);
  Lander lander;
  Replayed result;
  result.end = run_loop(*machine, source, lander, &meddler);
  result.counters = verifier.traced();
  result.verified = verifier.verified_epochs();
  result.final_digest = machine->whole_digest();
  return result;
}

TEST_CASE("a path recorded by one processor is verified on another that packs it differently") {
  CHECK(recorded().epochs > 3);  // how many follows the host's speed
  CHECK(recorded().counters.epochs == recorded().epochs);
  CHECK(recorded().counters.unknown == 0);
  CHECK(recorded().counters.counter_mismatches == 0);
  for (const uint64_t seed : {0, 1, 2}) {
    CAPTURE(seed);
    const WitnessOptions options{.variation_seed = seed};
    const Replayed r = replay(&options);
    INFO(r.end.detail);
    CHECK(r.end.kind == EndKind::kGuestPoweredOff);
    CHECK(r.counters.epochs == recorded().epochs);
    CHECK(r.counters.unknown == 0);
    CHECK(r.verified == recorded().epochs);
  }
}

TEST_CASE("a recording with digests of its path replays alike where nobody traces") {
  const WitnessOptions options;
  const Replayed traced = replay(&options);
  const Replayed plain = replay(nullptr);
  CHECK(plain.end.kind == EndKind::kGuestPoweredOff);
  CHECK(plain.verified == recorded().epochs);
  CHECK(plain.counters.epochs == 0);
  CHECK(plain.final_digest.hex() == traced.final_digest.hex());
}

TEST_CASE("lost trace makes epochs unknown and never diverged") {
  const WitnessOptions options{.buffer_bytes = 8192};
  const Replayed r = replay(&options);
  INFO(r.end.detail);
  CHECK(r.end.kind == EndKind::kGuestPoweredOff);
  CHECK(r.counters.unknown > 0);
  CHECK(r.counters.epochs + r.counters.unknown == recorded().epochs);
  CHECK(r.verified == recorded().epochs);
}

TEST_CASE("lost trace leaves the state's digests to find a divergence") {
  const WitnessOptions options{.buffer_bytes = 4096};
  const Replayed r = replay(&options, [](hv::Machine& machine, uint64_t input) {
    if (input != 20) return;
    hv::Registers registers = machine.vcpu().registers();
    registers.gpr[12] ^= 1;  // the payload does not use it
    machine.vcpu().set_registers(registers);
  });
  CHECK(r.end.kind == EndKind::kDiverged);
  CHECK(r.end.detail.find("registers") != std::string::npos);
}

// --- The verifier alone, given digests made by hand.

struct Judged {
  bool good = false;
  EndOfInputs why;
  WitnessCounters counters;
};

Judged judge(const std::function<void(ipt::EpochDigest&)>& change, size_t cut_bytes = 0,
             const std::function<void(hv::Machine&)>& meddle = {}) {
  NoWorld world;
  auto first = payload_machine(world, 10), second = payload_machine(world, 10);
  const auto a = witness_of(*first), b = witness_of(*second);
  if (meddle) meddle(*second);
  run_to(*first, 30);
  run_to(*second, 30);
  ipt::EpochDigest digest = a->cut(7);
  change(digest);
  ByteWriter blob;
  digest.encode(blob);
  Bytes bytes = blob.take();
  bytes.resize(bytes.size() - cut_bytes);
  Verifier verifier(b.get());
  Judged out;
  out.good = verifier.at_epoch(*second,
                               {.point = second->point(),
                                .epoch = 7,
                                .with_memory = false,
                                .expected = {},
                                .expected_trace = bytes},
                               out.why);
  out.counters = verifier.traced();
  return out;
}

TEST_CASE("a digest that is the replaying side's own agrees") {
  const Judged j = judge([](ipt::EpochDigest&) {});
  CHECK(j.good);
  CHECK(j.counters.epochs == 1);
}

TEST_CASE("one branch that goes the other way is a divergence that names stream and block") {
  bool done = false;
  const Judged j = judge([](ipt::EpochDigest&) {}, 0,
                         [&done](hv::Machine& machine) {
                           // The first JZ or JNZ, its flag flipped.
                           for (int steps = 0; steps < 2000 && !done; ++steps) {
                             uint8_t code[1] = {};
                             REQUIRE(machine.memory().read(GuestPhys(machine.point().rip), code));
                             done = (code[0] & 0xfe) == 0x74;
                             hv::Registers registers = machine.vcpu().registers();
                             if (done) registers.rflags ^= 0x40;
                             machine.vcpu().set_registers(registers);
                             machine.step();
                           }
                         });
  REQUIRE(done);
  CHECK(!j.good);
  CHECK(j.why.kind == EndKind::kDiverged);
  INFO(j.why.detail);
  CHECK(j.why.detail.find("epoch 7 differs in the path taken") != std::string::npos);
  CHECK(j.why.detail.find("T block 0") != std::string::npos);
  CHECK(j.why.detail.find("first differing: branch") != std::string::npos);
}

TEST_CASE("a trace that counts other branches than the counter is IPT-002 and names the side") {
  const Judged j = judge([](ipt::EpochDigest& digest) { ++digest.streams[0].items; });
  CHECK(!j.good);
  CHECK(j.why.kind == EndKind::kMiscount);
  REQUIRE(j.why.error.has_value());
  CHECK(j.why.error->id == "IPT-002");
  CHECK(j.why.error->seen.find("the recording side: 31 in the trace, 30 by the counter") !=
        std::string::npos);
  CHECK(j.counters.counter_mismatches == 1);
}

TEST_CASE("digests of another start or another kind of address say nothing") {
  const Judged start = judge([](ipt::EpochDigest& digest) {
    digest.bounds.start.branches = 1;
    digest.streams[0].digest.low ^= 1;
  });
  CHECK(start.good);
  CHECK(start.counters.unknown == 1);
  const Judged kind =
      judge([](ipt::EpochDigest& digest) { digest.setup.linear_addresses = false; });
  CHECK(kind.good);
  CHECK(kind.counters.unknown == 1);
}

TEST_CASE("a trace digest cut short makes the log unusable") {
  const Judged j = judge([](ipt::EpochDigest&) {}, 5);
  CHECK(!j.good);
  CHECK(j.why.kind == EndKind::kLogUnusable);
}

TEST_CASE("a trace digest's record gives the digest back") {
  NoWorld world;
  auto machine = payload_machine(world, 10);
  const auto witness = witness_of(*machine);
  run_to(*machine, 30);
  const ipt::EpochDigest digest = witness->cut(3);
  const FromRecord back = from_record(to_record(
      {.point = machine->point(), .epoch = 3, .with_memory = false, .expected = {}}, digest));
  REQUIRE(back.next.has_value());
  const auto* check = std::get_if<EpochCheck>(&*back.next);
  REQUIRE(check != nullptr);
  CHECK(check->epoch == 3);
  CHECK(!check->expected);
  REQUIRE(check->expected_trace.has_value());
  ByteReader in(*check->expected_trace);
  const auto decoded = ipt::decode_epoch_digest(in);
  REQUIRE(decoded.ok());
  CHECK(*decoded == digest);
  CHECK(decoded->branches() == 30);
}

}  // namespace
}  // namespace us::replay::test
