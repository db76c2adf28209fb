#include "ipt/normal_form.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <vector>

#include "tests/unit/ipt/trace_run.h"

namespace us::ipt::test {
namespace {

// The place of step `index` in its stream.
uint64_t place_of(const std::vector<Step>& run, size_t index, Step::Kind kind) {
  const auto in_stream = [&](const Step& step) {
    if (kind == Step::kIndirect)
      return step.kind == Step::kIndirect || step.kind == Step::kFarBranch;
    if (kind == Step::kAsync) return step.kind == Step::kAsync || step.kind == Step::kMovedExit;
    return step.kind == kind;
  };
  return static_cast<uint64_t>(
      std::count_if(run.begin(), run.begin() + static_cast<ptrdiff_t>(index), in_stream));
}

// Only `stream` differs, in a block that holds `item`.
void check_points_at(const EpochDigest& a, const EpochDigest& b, Stream stream, uint64_t item) {
  const Comparison found = compare(a, b);
  REQUIRE(found.verdict == Verdict::kDiffers);
  for (size_t i = 0; i < kStreams; ++i) {
    CHECK(found.differences[i].has_value() == (i == static_cast<size_t>(stream)));
  }
  const StreamDifference& at = found.differences[static_cast<size_t>(stream)].value();
  CHECK(at.first_item <= item);
  CHECK(item < at.end_item);
  CHECK(!(a.combined() == b.combined()));
}

EpochDigest packets_digest(const Bytes& packets) {
  Bytes bytes(kPsbPacket, kPsbPacket + kPsbBytes);
  bytes.insert(bytes.end(), {0x02, 0x23});
  bytes.insert(bytes.end(), packets.begin(), packets.end());
  return digest_of_trace(bytes);
}

}  // namespace

TEST_CASE("a thousand seeds of variation of one run give one digest") {
  const std::vector<Step> run = random_run(42, 6000);
  const EpochDigest plain = digest_of_run(run);
  CHECK(plain.counter_agrees());
  CHECK(!plain.loss.any());
  size_t distinct_sizes = 0;
  size_t last_size = 0;
  for (uint64_t seed = 1; seed <= 1000; ++seed) {
    CAPTURE(seed);
    const Bytes trace =
        trace_of(run, {.psb_period = 4096, .variation = VariationConfig::all(seed)});
    distinct_sizes += trace.size() != last_size ? 1 : 0;
    last_size = trace.size();
    const EpochDigest varied = digest_of_trace(trace, bounds_of(run));
    REQUIRE(varied == plain);
  }
  CHECK(distinct_sizes > 900);
}

TEST_CASE("each variation alone, and long TNTs, leave the digest as it is") {
  const std::vector<Step> run = random_run(7, 4000);
  const EpochDigest plain = digest_of_run(run);
  for (uint64_t which = 0; which < 8; ++which) {
    CAPTURE(which);
    VariationConfig variation{.seed = which + 1};
    bool* const switches[] = {&variation.tnt_cuts,          &variation.psb_placement,
                              &variation.deferred_tips,     &variation.padding,
                              &variation.transparent_exits, &variation.mode_repeats,
                              &variation.ip_compression,    &variation.timing};
    *switches[which] = true;
    const Bytes trace = trace_of(run, {.variation = variation});
    CHECK(trace != trace_of(run));
    CHECK(digest_of_trace(trace, bounds_of(run)) == plain);
  }
  CHECK(digest_of_run(run, {.long_tnt = true}) == plain);
}

TEST_CASE("a run fed in pieces of any size gives the same digest") {
  const std::vector<Step> run = random_run(8, 3000);
  const Bytes trace = trace_of(run, {.variation = VariationConfig::all(3)});
  const EpochDigest whole = digest_of_trace(trace, bounds_of(run));
  for (const size_t piece : {1, 3, 64, 100, 4096}) {
    CAPTURE(piece);
    NormalForm form;
    for (size_t at = 0; at < trace.size(); at += piece) {
      form.feed(ByteSpan(trace).subspan(at, std::min(piece, trace.size() - at)));
    }
    CHECK(form.end_epoch(bounds_of(run)) == whole);
  }
}

TEST_CASE("any single step that differs gives another digest, and the sub-hash points at it") {
  std::vector<Step> run = random_run(11, 3000);
  const EpochDigest before = digest_of_run(run);
  for (size_t i = 0; i < run.size(); ++i) {
    CAPTURE(i);
    const Step kept = run[i];
    switch (kept.kind) {
      case Step::kConditional:
        run[i].a ^= 1;
        check_points_at(before, digest_of_run(run), Stream::kBranches,
                        place_of(run, i, Step::kConditional));
        break;
      case Step::kIndirect:
      case Step::kFarBranch:
        run[i].a ^= 1ull << (i % 64);
        check_points_at(before, digest_of_run(run), Stream::kTargets,
                        place_of(run, i, Step::kIndirect));
        break;
      case Step::kAsync:
      case Step::kMovedExit:
        (i % 2 == 0 ? run[i].a : run[i].b) ^= 1ull << (i % 64);
        check_points_at(before, digest_of_run(run), Stream::kAsync, place_of(run, i, Step::kAsync));
        break;
      case Step::kCr3:
        run[i].a ^= 1ull << (12 + i % 30);
        check_points_at(before, digest_of_run(run), Stream::kAddressSpaces,
                        place_of(run, i, Step::kCr3));
        break;
    }
    run[i] = kept;
  }
}

TEST_CASE("a mode change that differs shows in the mode stream alone") {
  const std::vector<Step> run = {{Step::kFarBranch, 0x1000, kExecD}, {Step::kConditional, 1}};
  const std::vector<Step> other = {{Step::kFarBranch, 0x1000, 0}, {Step::kConditional, 1}};
  check_points_at(digest_of_run(run), digest_of_run(other), Stream::kModes, 0);
}

TEST_CASE("an interrupt one branch later differs in the event stream alone") {
  std::vector<Step> run(1000, Step{Step::kConditional, 1});
  std::vector<Step> later = run;
  run.insert(run.begin() + 500, Step{Step::kAsync, 0x1000, 0x2000});
  later.insert(later.begin() + 501, Step{Step::kAsync, 0x1000, 0x2000});
  check_points_at(digest_of_run(run), digest_of_run(later), Stream::kAsync, 0);
}

TEST_CASE("in millions of branches a flipped one is found to within a sixteenth") {
  VariationRandom random(5);
  std::vector<Step> run;
  for (size_t i = 0; i < 2000000; ++i) run.push_back({Step::kConditional, random.below(2)});
  const EpochDigest before = digest_of_run(run);
  CHECK(before.stream(Stream::kBranches).blocks.size() <= StreamHasher::kMaxBlocks);
  for (const size_t at : {size_t{0}, size_t{8191}, size_t{8192}, size_t{1234567}, run.size() - 1}) {
    CAPTURE(at);
    run[at].a ^= 1;
    const EpochDigest after = digest_of_run(run);
    run[at].a ^= 1;
    check_points_at(before, after, Stream::kBranches, at);
    const Comparison found = compare(before, after);
    const StreamDifference& range = found.differences[0].value();
    CHECK(range.end_item - range.first_item <= run.size() / 7);
  }
}

TEST_CASE(
    "an exit that resumes where it left or an instruction on is dropped, one elsewhere is kept") {
  const Bytes gone = {0x04, 0x3d, 0x10, 0x00, 0x01, 0x31, 0x10, 0x00, 0x06};
  CHECK(packets_digest(gone).stream(Stream::kAsync).items == 0);
  CHECK(packets_digest(gone).branches() == 2);
  for (const uint8_t to : {0x11, 0x1f}) {
    const Bytes executed = {0x04, 0x3d, 0x10, 0x00, 0x01, 0x31, to, 0x00, 0x06};
    CHECK(packets_digest(executed).stream(Stream::kAsync).items == 0);
  }
  for (const uint8_t to : {0x0f, 0x20}) {
    const Bytes moved = {0x04, 0x3d, 0x10, 0x00, 0x01, 0x31, to, 0x00, 0x06};
    CHECK(packets_digest(moved).stream(Stream::kAsync).items == 1);
  }
}

TEST_CASE("an event that the monitor delivered is the processor's, wherever the guest was left") {
  // PGE 0x1000, T, FUP 0x1020, TIP 0x2000, N, FUP 0x2010, PGD.
  const EpochDigest by_processor = packets_digest(
      {0x31, 0x00, 0x10, 0x06, 0x3d, 0x20, 0x10, 0x2d, 0x00, 0x20, 0x04, 0x3d, 0x10, 0x20, 0x01});
  // Left at 0x1020, or two bytes before, where an instruction was executed for the guest.
  for (const uint8_t left_at : {0x20, 0x1e}) {
    NormalForm form;
    Bytes before(kPsbPacket, kPsbPacket + kPsbBytes);
    const Bytes packets = {0x02, 0x23, 0x31, 0x00, 0x10, 0x06, 0x3d, left_at, 0x10, 0x01};
    before.insert(before.end(), packets.begin(), packets.end());
    form.feed(before);
    form.note_delivery(0x1020, 0x2000);
    // Where the processor goes on, and where it does not.
    if (left_at == 0x20) form.feed(Bytes{0x31, 0x00, 0x20, 0x04, 0x3d, 0x10, 0x20, 0x01});
    if (left_at == 0x1e) form.feed(Bytes{0x31, 0x00, 0x20, 0x04, 0x3d, 0x0f, 0x20, 0x01});
    form.note_position(0x2010);
    const EpochDigest digest = form.end_epoch();
    CHECK(digest == by_processor);
    CHECK(digest.last_ip == 0x2010);
  }
}

TEST_CASE("an epoch after a loss in the guest's midst is judged as if nothing had been before") {
  const std::vector<Step> run = random_run(31, 300);
  TraceBuffer buffer;
  PacketWriter writer(buffer, {});
  writer.enable(kRunStart);
  for (const Step& step : run) write_step(step, writer);
  writer.flush();
  NormalForm form;
  form.feed(buffer.bytes());
  form.note_aux_flags(loss_flag::kTruncated);
  CHECK(form.end_epoch().loss.reason() == "the trace buffer was full");
  form.feed(trace_of(run));
  CHECK(form.end_epoch(bounds_of(run)).combined() == digest_of_run(run).combined());
}

TEST_CASE("an epoch before the first byte is empty and no loss, and spoils not the next") {
  const std::vector<Step> run = random_run(41, 100);
  NormalForm form;
  form.note_position(kRunStart);
  const EpochDigest empty = form.end_epoch();
  CHECK(!empty.loss.any());
  CHECK(empty.branches() == 0);
  CHECK(empty.first_ip == kRunStart);
  form.feed(trace_of(run));
  CHECK(form.end_epoch(bounds_of(run)) == digest_of_run(run));
}

TEST_CASE("the first TIP.PGE and the last exit are where the epoch starts and ends") {
  const EpochDigest digest = digest_of_run({{Step::kConditional, 1}});
  CHECK(digest.first_ip == kRunStart);
  CHECK(digest.last_ip == kRunEnd);
  CHECK(digest.first_mode == kExecLong);
}

TEST_CASE("epochs stand alone: each is equal however the epochs before it were varied") {
  std::vector<std::vector<Step>> epochs;
  for (uint64_t i = 0; i < 20; ++i) epochs.push_back(random_run(100 + i, 400));
  const auto digests = [&](const PacketWriterConfig& config) {
    std::vector<EpochDigest> out;
    TraceBuffer buffer;
    PacketWriter writer(buffer, config);
    NormalForm form;
    for (const std::vector<Step>& run : epochs) {
      write_steps(run, writer);
      form.feed(buffer.take());
      EpochBounds bounds = bounds_of(run);
      bounds.epoch = out.size();
      out.push_back(form.end_epoch(bounds));
    }
    return out;
  };
  const std::vector<EpochDigest> plain = digests({});
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    CAPTURE(seed);
    CHECK(digests({.psb_period = 3000, .variation = VariationConfig::all(seed)}) == plain);
  }
  for (const EpochDigest& one : plain) CHECK(!one.loss.any());
}

TEST_CASE("an overflow makes its epoch unknown and the next one comparable again") {
  const std::vector<Step> run = random_run(21, 500);
  const auto two_epochs = [&](bool overflows) {
    TraceBuffer buffer;
    PacketWriter writer(buffer, {});
    NormalForm form;
    std::vector<EpochDigest> out;
    for (int epoch = 0; epoch < 2; ++epoch) {
      writer.enable(kRunStart);
      for (size_t i = 0; i < run.size(); ++i) {
        if (overflows && epoch == 0 && i == 250) writer.overflow();
        write_step(run[i], writer);
      }
      writer.exit(kRunEnd);
      writer.flush();
      form.feed(buffer.take());
      out.push_back(form.end_epoch(bounds_of(run)));
    }
    return out;
  };
  const std::vector<EpochDigest> lossy = two_epochs(true);
  const std::vector<EpochDigest> whole = two_epochs(false);
  CHECK(lossy[0].loss.overflows == 1);
  CHECK(compare(lossy[0], whole[0]).verdict == Verdict::kUnknown);
  CHECK(compare(lossy[1], whole[1]).verdict == Verdict::kEqual);
}

TEST_CASE("damage makes every epoch unknown until the next PSB") {
  const std::vector<Step> run = random_run(22, 500);
  TraceBuffer buffer;
  PacketWriter writer(buffer, {});
  NormalForm form;
  const auto epoch = [&](bool damaged) {
    write_steps(run, writer);
    Bytes bytes = buffer.take();
    if (damaged) bytes.insert(bytes.end() - 40, {0xff, 0xb9, 0xb9});
    form.feed(bytes);
    return form.end_epoch(bounds_of(run)).loss.any();
  };
  CHECK(epoch(false) == false);
  CHECK(epoch(true) == true);
  CHECK(epoch(false) == true);
  writer.enable(kRunStart);
  writer.psb(kRunStart);
  writer.exit(kRunStart);
  CHECK(epoch(false) == true);
  CHECK(epoch(false) == false);
}

TEST_CASE("capture flags and a packet cut at the epoch's end make it unknown") {
  const std::vector<Step> run = random_run(23, 300);
  const Bytes trace = trace_of(run);
  NormalForm flagged;
  flagged.feed(trace);
  flagged.note_aux_flags(1);
  CHECK(flagged.end_epoch(bounds_of(run)).loss.aux_flags == 1);
  NormalForm cut;
  cut.feed(trace);
  cut.feed(Bytes{0x4d, 0x01});
  CHECK(cut.end_epoch(bounds_of(run)).loss.cut_packet);
}

TEST_CASE("packets that cannot follow one another are errors, not control flow") {
  CHECK(packets_digest({0x01, 0x06}).loss.errors == 1);              // TNT after TIP.PGD
  CHECK(packets_digest({0x01, 0x2d, 0x01, 0x00}).loss.errors == 1);  // TIP after TIP.PGD
  CHECK(packets_digest({0x31, 1, 0, 0x31, 1, 0}).loss.errors == 1);  // TIP.PGE twice
  CHECK(packets_digest({0x02, 0x12, 1, 2, 3, 4, 0x06}).loss.errors == 0);
}

TEST_CASE("a FUP that belongs to PTWRITE is no event") {
  const Bytes with = {0x06, 0x02, 0x92, 1, 2, 3, 4, 0x3d, 0x10, 0x00, 0x2d, 0x20, 0x00};
  const Bytes without = {0x06, 0x2d, 0x20, 0x00};
  CHECK(packets_digest(with).combined() == packets_digest(without).combined());
}

TEST_CASE("a system-wide trace has the digest of the guest-only one") {
  // Guest-only: PGE 0x1000, T, FUP 0x1010, PGD, PGE 0x1010, N, FUP 0x1020, PGD, PGE 0x1040, T.
  const Bytes guest_only = {0x31, 0x00, 0x10, 0x06, 0x3d, 0x10, 0x10, 0x01, 0x31, 0x10,
                            0x10, 0x04, 0x3d, 0x20, 0x10, 0x01, 0x31, 0x40, 0x10, 0x06};
  const Bytes exit = {0x02, 0x43, 0x00, 0x01, 0, 0, 0, 0, 0x2d, 0x00, 0x80};  // PIP NR=0, TIP host
  const Bytes entry = {0x02, 0x43, 0x01, 0x02, 0, 0, 0, 0};                   // PIP NR=1
  Bytes wide = {0x31, 0x00, 0x10, 0x06, 0x3d, 0x10, 0x10};
  const auto add = [&](const Bytes& more) { wide.insert(wide.end(), more.begin(), more.end()); };
  add(exit);
  add({0xfe, 0xaa, 0x2d, 0x10, 0x80, 0x3d, 0x30, 0x80, 0x2d, 0x40, 0x80});  // the host's doings
  add(entry);
  add({0x2d, 0x10, 0x10, 0x04, 0x3d, 0x20, 0x10});
  add(exit);
  add({0xfe});
  add(entry);
  add({0x2d, 0x40, 0x10, 0x06});
  Bytes bytes(kPsbPacket, kPsbPacket + kPsbBytes);
  bytes.insert(bytes.end(), {0x02, 0x23});
  bytes.insert(bytes.end(), wide.begin(), wide.end());
  NormalForm form(NormalFormOptions{.setup = {}, .system_wide = true});
  form.feed(bytes);
  const EpochDigest digest = form.end_epoch({});
  CHECK(digest.combined() == packets_digest(guest_only).combined());
  CHECK(digest.branches() == 3);
  CHECK(digest.stream(Stream::kAsync).items == 1);
  CHECK(!digest.loss.any());
}

}  // namespace us::ipt::test
