// What the software processor traces, against what it did: libipt reconstructs every instruction.
#include <array>
#include <doctest/doctest.h>

#include "ipt/normal_form.h"
#include "ipt/packet_writer.h"
#include "ipt/trace_stat.h"
#include "tests/support/pt_flow.h"
#include "tests/unit/cpu_trace/traced_guest.h"
#include "tests/unit/ipt/libipt_oracle.h"

namespace us::hv::test {
namespace {

struct Traced {
  Bytes trace;
  std::vector<Stop> stops;
  uint64_t branches = 0, instructions = 0;
};

Traced traced(uint64_t seed, const ipt::VariationConfig& variation = {}) {
  TracedGuest guest;
  ipt::TraceBuffer buffer;
  REQUIRE(guest.vcpu.start_trace({.sink = &buffer, .variation = variation}).ok());
  guest.run(seed, [&] { guest.vcpu.cut_trace(); });
  guest.vcpu.stop_trace();
  return {buffer.take(), std::move(guest.stops), guest.vcpu.cpu().branches, guest.instructions()};
}

// Steps a second guest along the same way and holds libipt's instructions against its own.
void check_flow(const Traced& run) {
  TracedGuest guest;
  us::test::PtFlow flow(run.trace, guest.vcpu.cpu());
  bool stepped = true;
  while (stepped) {
    guest.follow(run.stops);
    const uint64_t linear = guest.linear();
    const uint64_t before = guest.instructions();
    stepped = guest.vcpu.step() == StopReason::kStepped;
    if (guest.instructions() == before) continue;  // a delivery, or a piece of a REP
    const bool same = flow.executed(linear);
    INFO(flow.error());
    REQUIRE(same);
  }
  CHECK(flow.instructions() == run.instructions);
  CHECK(flow.ended());
}

TEST_CASE("libipt reconstructs every instruction from real mode to compatibility mode") {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    CAPTURE(seed);
    check_flow(traced(seed));
  }
}

TEST_CASE("libipt reconstructs every instruction of traces varied as processors differ") {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    CAPTURE(seed);
    // libipt wants TIPs where their branch is.
    ipt::VariationConfig variation = ipt::VariationConfig::all(seed);
    variation.deferred_tips = false;
    check_flow(traced(seed, variation));
  }
}

ipt::EpochDigest digest_of(ByteSpan trace) {
  ipt::NormalForm form;
  form.feed(trace);
  return form.end_epoch();
}

TEST_CASE("the payload passes every mode and every kind of branch") {
  const Traced run = traced(1);
  const ipt::EpochDigest digest = digest_of(run.trace);
  CHECK(!digest.loss.any());
  CHECK(run.branches > 5000);
  CHECK(digest.stream(ipt::Stream::kTargets).items > 2000);
  // Faults, interrupts and NMIs.
  CHECK(digest.stream(ipt::Stream::kAsync).items > 500);
  // The long mode's tables; and 900 / 8 times the same again, which is no change.
  CHECK(digest.stream(ipt::Stream::kAddressSpaces).items == 1);
  // 16, 32, 16, 32, 64 bits, and from the user's 32-bit code into the kernel and back.
  CHECK(digest.stream(ipt::Stream::kModes).items > 400);
}

TEST_CASE("every retired conditional branch is one TNT bit, and the counts are libipt's") {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    CAPTURE(seed);
    const Traced run =
        traced(seed, seed % 2 == 0 ? ipt::VariationConfig::all(seed) : ipt::VariationConfig{});
    const ipt::TraceStat stat = ipt::trace_stat(run.trace);
    CHECK(stat.tnt_bits == run.branches);
    CHECK(stat.errors == 0);
    std::array<uint64_t, ipt::kPacketKinds> count{};
    for (const ipt::Packet& packet : ipt::test::libipt_scan(run.trace).packets)
      ++count[static_cast<size_t>(packet.kind)];
    const auto of = [&](ipt::PacketKind kind) { return count[static_cast<size_t>(kind)]; };
    CHECK(stat.psb == of(ipt::PacketKind::kPsb));
    CHECK(stat.tip == of(ipt::PacketKind::kTip));
    CHECK(stat.tip_pge == of(ipt::PacketKind::kTipPge));
    CHECK(stat.tip_pgd == of(ipt::PacketKind::kTipPgd));
    CHECK(stat.fup == of(ipt::PacketKind::kFup));
    CHECK(stat.pip == of(ipt::PacketKind::kPip));
    CHECK(stat.mode == of(ipt::PacketKind::kModeExec));
    CHECK(stat.pad == of(ipt::PacketKind::kPad));
  }
}

TEST_CASE("two hundred processors that differ trace one run to one digest") {
  const ipt::EpochDigest plain = digest_of(traced(3).trace);
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    CAPTURE(seed);
    CHECK(digest_of(traced(3, ipt::VariationConfig::all(seed)).trace).combined().hex() ==
          plain.combined().hex());
  }
}

TEST_CASE("a traced processor does what one does that is not") {
  const Traced run = traced(5);
  TracedGuest guest;
  guest.run(5, [] {});  // draws as many random numbers
  CHECK(guest.instructions() == run.instructions);
  CHECK(guest.vcpu.cpu().branches == run.branches);
}

TEST_CASE("tracing begins and ends anywhere, and state loaded meanwhile is gone on from") {
  TracedGuest guest;
  ByteWriter saved;
  guest.vcpu.save(saved);
  ipt::TraceBuffer buffer;
  CHECK(!guest.vcpu.tracing());
  REQUIRE(guest.vcpu.start_trace({.sink = &buffer}).ok());
  CHECK(guest.vcpu.tracing());
  guest.vcpu.run({.alarm = Branches(100)});
  ByteReader in(saved.bytes());
  REQUIRE(guest.vcpu.load(in).ok());
  guest.vcpu.run({.alarm = Branches(50)});
  guest.vcpu.stop_trace();
  CHECK(!guest.vcpu.tracing());
  const ipt::TraceStat stat = ipt::trace_stat(buffer.bytes());
  CHECK(stat.errors == 0);
  CHECK(stat.tnt_bits == 100 + guest.vcpu.cpu().branches);
  CHECK(stat.tip_pge == 2);
  const size_t before = buffer.bytes().size();
  guest.vcpu.run({.alarm = Branches(100)});
  CHECK(buffer.bytes().size() == before);
}

TEST_CASE("a sink without room loses trace, which OVF tells, and libipt finds the way again") {
  struct Small final : ipt::TraceSink {
    ipt::TraceBuffer inner;
    unsigned pieces = 0;
    bool accept(ByteSpan bytes) override { return ++pieces % 3 != 0 && inner.accept(bytes); }
  } sink;
  TracedGuest guest;
  REQUIRE(guest.vcpu.start_trace({.sink = &sink, .staging_bytes = 2048}).ok());
  guest.run(2, [] {});
  guest.vcpu.stop_trace();
  const ipt::TraceStat stat = ipt::trace_stat(sink.inner.bytes());
  CHECK(stat.ovf > 0);
  CHECK(stat.errors == 0);
  CHECK(stat.tnt_bits < guest.vcpu.cpu().branches);
  CHECK(digest_of(sink.inner.bytes()).loss.any());
}

}  // namespace
}  // namespace us::hv::test
