#include "ipt/capture/guest_filter.h"

#include <algorithm>
#include <doctest/doctest.h>

#include "ipt/epoch_digest.h"
#include "tests/unit/ipt/trace_run.h"

namespace us::ipt::test {
namespace {

struct Filtered {
  explicit Filtered(bool host_inside)
      : filter(host_inside, [this](ByteSpan b) { out.insert(out.end(), b.begin(), b.end()); }) {}
  void feed(ByteSpan bytes, size_t piece) {
    for (size_t at = 0; at < bytes.size(); at += piece)
      filter.feed(bytes.subspan(at, std::min(piece, bytes.size() - at)));
  }
  Bytes take() { return std::exchange(out, {}); }
  Bytes out;
  GuestFilter filter;
};

Bytes joined(std::initializer_list<Bytes> parts) {
  Bytes all;
  for (const Bytes& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

const Bytes kPsbPlus = {0x02, 0x82, 0x02, 0x82, 0x02, 0x82, 0x02, 0x82, 0x02,
                        0x82, 0x02, 0x82, 0x02, 0x82, 0x02, 0x82, 0x02, 0x23};
const Bytes kPipHost = {0x02, 0x43, 0x00, 0x01, 0, 0, 0, 0};
const Bytes kPipGuest = {0x02, 0x43, 0x01, 0x02, 0, 0, 0, 0};

TEST_CASE("a guest-only trace keeps its digest, whatever pieces it comes in") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const std::vector<Step> run = random_run(seed, 1500);
    const Bytes trace =
        trace_of(run, {.psb_period = 1000, .variation = VariationConfig::all(seed)});
    Bytes whole;
    for (const size_t piece : {trace.size(), size_t{1}, size_t{7}, size_t{64}, size_t{1000}}) {
      CAPTURE(seed);
      CAPTURE(piece);
      Filtered f(false);
      f.filter.begin_stretch();
      f.feed(trace, piece);
      CHECK(f.filter.end_stretch() == 0);
      if (whole.empty()) whole = f.out;
      CHECK(f.out == whole);
    }
    CHECK(digest_of_trace(whole, bounds_of(run)).combined() == digest_of_run(run).combined());
  }
}

TEST_CASE("every stretch can be decoded alone, though the event makes no PSB for it") {
  TraceBuffer buffer;
  PacketWriter writer(buffer, {.psb_period = 1 << 20});
  Filtered f(false);
  for (uint64_t i = 0; i < 10; ++i) {
    CAPTURE(i);
    const std::vector<Step> run = random_run(50 + i, 300);
    write_steps(run, writer);
    f.filter.begin_stretch();
    f.filter.resume(kRunStart);
    f.feed(buffer.take(), 100);
    CHECK(f.filter.end_stretch() == 0);
    const Bytes stretch = f.take();
    CHECK(std::equal(kPsbPacket, kPsbPacket + kPsbBytes, stretch.begin()));
    const EpochDigest alone = digest_of_trace(stretch, bounds_of(run));
    CHECK(!alone.loss.any());
    CHECK(alone.first_ip == kRunStart);
    CHECK(alone.first_mode.has_value());
    CHECK(alone.stream(Stream::kTargets) == digest_of_run(run).stream(Stream::kTargets));
    CHECK(alone.stream(Stream::kBranches) == digest_of_run(run).stream(Stream::kBranches));
    CHECK(alone.stream(Stream::kAsync) == digest_of_run(run).stream(Stream::kAsync));
  }
}

TEST_CASE("the first address after a pause is read by the guest's place, if that tells") {
  // PSB+, PGE 0x7f0000401000, FUP, PGD; then PGE with four bytes: carried on, or from nothing.
  const Bytes first =
      joined({kPsbPlus, {0x71, 0x00, 0x10, 0x40, 0x00, 0x00, 0x7f, 0x3d, 0x04, 0x10, 0x01}});
  const Bytes second = {0x51, 0x00, 0x20, 0x40, 0x00, 0x04, 0x3d, 0x04, 0x20, 0x01};
  for (const uint64_t place : {uint64_t{0x7f00'0040'2000}, uint64_t{0x40'2000}}) {
    CAPTURE(place);
    Filtered f(false);
    f.filter.resume(0x7f00'0040'1000);
    f.feed(first, 100);
    CHECK(f.filter.end_stretch() == 0);
    f.take();
    f.filter.begin_stretch();
    f.filter.resume(place);
    f.feed(second, 100);
    CHECK(f.filter.end_stretch() == 0);
    CHECK(digest_of_trace(f.out).first_ip == place);
  }
}

TEST_CASE("the host's part of a system-wide trace is dropped, and addresses stay right") {
  const Bytes wide = joined({
      kPsbPlus,
      {0x71, 0x00, 0x00, 0x00, 0x81, 0xff, 0xff, 0xaa},  // PGE in the host, branches
      kPipGuest,
      {0x6d, 0x00, 0x10, 0x40, 0x00, 0x00, 0x7f, 0x06},  // TIP into the guest, T
      {0x2d, 0x00, 0x20, 0x3d, 0x04, 0x20},              // TIP, FUP
      kPipHost,
      {0x6d, 0x00, 0x01, 0x00, 0x81, 0xff, 0xff},  // TIP into the host
      {0xfe, 0x2d, 0x10, 0x01, 0x3d, 0x20, 0x01, 0x2d, 0x30, 0x01},
      kPsbPlus,
      {0x7d, 0x20, 0x01, 0x00, 0x81, 0xff, 0xff, 0x01},  // stopped in the host: FUP, PGD
      {0x31, 0x24, 0x01},                                // and on: PGE
      kPipGuest,
      {0x6d, 0x04, 0x20, 0x40, 0x00, 0x00, 0x7f, 0x04},  // where it was left, N
      kPipGuest,                                         // the guest writes CR3
      {0x3d, 0x08, 0x20},
      kPipHost,
      {0x6d, 0x00, 0x01, 0x00, 0x81, 0xff, 0xff},
  });
  const Bytes guest_only = joined({kPsbPlus,
                                   {0x71, 0x00, 0x10, 0x40, 0x00, 0x00, 0x7f, 0x06},
                                   {0x2d, 0x00, 0x20, 0x3d, 0x04, 0x20, 0x01},
                                   {0x31, 0x04, 0x20, 0x04},
                                   kPipGuest,
                                   {0x3d, 0x08, 0x20, 0x01}});
  for (size_t piece = 1; piece <= wide.size(); ++piece) {
    CAPTURE(piece);
    Filtered f(true);
    f.feed(wide, piece);
    CHECK(f.filter.end_stretch() == 0);
    const EpochDigest digest = digest_of_trace(f.out);
    CHECK(digest == digest_of_trace(guest_only));
    CHECK(digest.branches() == 2);
    CHECK(digest.last_ip == 0x7f00'0040'2008);
  }
}

TEST_CASE("a VM entry that fails leaves nothing in the guest's trace") {
  Filtered f(true);
  f.feed(joined({kPsbPlus, kPipGuest, kPipHost, {0x6d, 0x00, 0x01, 0x00, 0x81, 0xff, 0xff, 0xfe}}),
         100);
  CHECK(f.filter.end_stretch() == 0);
  CHECK(f.out.empty());
}

TEST_CASE("a stretch that is no whole trace is bad, and after a PSB all is well again") {
  const Bytes good = joined({kPsbPlus, {0x31, 0x00, 0x10, 0x06, 0x3d, 0x04, 0x10, 0x01}});
  struct Case {
    const char* what;
    Bytes bytes;
  };
  for (const Case& c :
       {Case{"ends in the guest", joined({kPsbPlus, {0x31, 0x00, 0x10, 0x06}})},
        Case{"ends within a packet", joined({good, {0x31, 0x00}})},
        Case{"no PSB at all", {0x31, 0x00, 0x10, 0x06, 0x3d, 0x04, 0x10, 0x01}},
        Case{"something before the PSB", joined({{0x06, 0x06}, good})},
        Case{"no packet", joined({good, {0xb9}})},
        Case{"branches of nobody", joined({good, {0x06}})},
        Case{"a target of nobody", joined({good, {0x2d, 0x00, 0x10}})},
        Case{"enabled twice",
             joined(
                 {kPsbPlus, {0x31, 0x00, 0x10}, {0x31, 0x00, 0x10}, {0x3d, 0x00, 0x10, 0x01}})}}) {
    CAPTURE(c.what);
    Filtered f(false);
    f.feed(c.bytes, 5);
    CHECK(f.filter.end_stretch() == loss_flag::kBadPackets);
    f.filter.lose();
    f.take();
    f.feed(good, 5);
    CHECK(f.filter.end_stretch() == 0);
    CHECK(digest_of_trace(f.out).branches() == 1);
  }
  Filtered wide(true);
  wide.feed(joined({kPsbPlus, kPipGuest, {0x2d, 0x00, 0x10, 0x06}, kPipHost}), 9);
  CHECK(wide.filter.end_stretch() == loss_flag::kBadPackets);  // an exit without its FUP
}

TEST_CASE("an overflow is passed on, and the trace goes on where it is known to be the guest's") {
  const Bytes ovf = {0x02, 0xf3};
  Filtered only(false);
  only.feed(joined({kPsbPlus,
                    {0x31, 0x00, 0x10, 0x06},
                    ovf,
                    {0x3d, 0x00, 0x11, 0x04, 0x3d, 0x08, 0x11, 0x01}}),
            3);
  CHECK(only.filter.end_stretch() == 0);
  CHECK(digest_of_trace(only.out).loss.overflows == 1);
  CHECK(digest_of_trace(only.out).loss.errors == 0);
  Filtered wide(true);
  wide.feed(joined({kPsbPlus,
                    kPipGuest,
                    {0x2d, 0x00, 0x10, 0x06},
                    ovf,
                    {0x3d, 0x00, 0x11, 0xfe, 0xfe},
                    kPipHost,
                    {0x2d, 0x00, 0x80},
                    kPipGuest,
                    {0x2d, 0x00, 0x12, 0x06, 0x3d, 0x04, 0x12},
                    kPipHost,
                    {0x2d, 0x00, 0x80}}),
            3);
  CHECK(wide.filter.end_stretch() == 0);
  CHECK(digest_of_trace(wide.out).loss.overflows == 1);
  CHECK(digest_of_trace(wide.out).branches() == 2);  // none of those that may have been the host's
}

}  // namespace
}  // namespace us::ipt::test
