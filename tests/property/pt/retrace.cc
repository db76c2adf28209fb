#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>

#include "base/check.h"
#include "ipt/normal_form.h"
#include "ipt/packet_writer.h"
#include "tests/property/pt/soak.h"
#include "tests/unit/ipt/trace_run.h"

namespace us::test {
namespace {

using ipt::EpochDigest;
using ipt::Packet;
using ipt::PacketKind;
using ipt::Stream;
using ipt::test::Step;

// The run that a trace tells, as the packet writer would have been told it.
class Collector {
 public:
  struct Fast {
    void tnt(uint64_t, unsigned) {}
    void tip(uint64_t) {}
    void pads(unsigned) {}
    ptrdiff_t room() const { return 1 << 20; }
  };
  static constexpr bool kWantsPads = false;
  bool plain() const { return false; }
  void pads(uint64_t) {}
  Fast begin_fast() { return {}; }
  void end_fast(const Fast&) {}
  void damage(uint64_t offset) { US_CHECK(false, "the trace is damaged at {}", offset); }

  void packet(const Packet& p) {
    if (p.kind == PacketKind::kPsb) in_psb_ = true;
    if (p.kind == PacketKind::kPsbEnd) in_psb_ = false;
    if (in_psb_) return;
    if (!begun_ && p.kind != PacketKind::kTipPge && p.kind != PacketKind::kModeExec) return;
    switch (p.kind) {
      case PacketKind::kTnt8:
      case PacketKind::kTnt64:
        for (unsigned i = p.bits; i-- > 0;) steps.push_back({Step::kConditional, p.value >> i & 1});
        break;
      case PacketKind::kTip: tip(p.ip); break;
      case PacketKind::kFup: from_ = p.ip; break;
      case PacketKind::kPip: steps.push_back({Step::kCr3, p.value}); break;
      case PacketKind::kModeExec: mode_ = static_cast<uint8_t>(p.value & ipt::kExecModeMask); break;
      // Cuts between epochs come back where they left, and are nothing.
      case PacketKind::kTipPgd: from_.reset(); break;
      case PacketKind::kTipPge:
        begun_ = true;
        if (steps.empty()) first_mode = mode_;
        last_mode_ = mode_;
        break;
      default: break;
    }
  }

  std::vector<Step> steps;
  uint8_t first_mode = ipt::kExecLong;

 private:
  void tip(uint64_t ip) {
    if (from_) {
      steps.push_back({Step::kAsync, *from_, ip});
    } else if (mode_ != last_mode_) {
      steps.push_back({Step::kFarBranch, ip, mode_});
    } else {
      steps.push_back({Step::kIndirect, ip});
    }
    last_mode_ = mode_;
    from_.reset();
  }

  bool in_psb_ = false, begun_ = false;
  std::optional<uint64_t> from_;
  uint8_t mode_ = ipt::kExecLong, last_mode_ = ipt::kExecLong;
};

class Soak {
 public:
  Soak(std::vector<Step> steps, uint8_t mode) : steps_(std::move(steps)) {
    config_.initial_mode = mode;
    plain_ = digest({});
  }

  const EpochDigest& plain() const { return plain_; }

  EpochDigest digest(const ipt::VariationConfig& variation) {
    ipt::PacketWriterConfig config = config_;
    config.variation = variation;
    return ipt::test::digest_of_trace(ipt::test::trace_of(steps_, config));
  }

  // Changes one thing and back. True: another digest, first in the right stream, at the right
  // place.
  bool change_shows(ipt::VariationRandom& random, uint64_t seed) {
    const size_t at = draw(random);
    Step& step = steps_[at];
    const Step kept = step;
    Stream stream = Stream::kBranches;
    switch (step.kind) {
      case Step::kConditional: step.a ^= 1; break;
      case Step::kAsync:
        stream = Stream::kAsync;
        (random.one_in(2) ? step.a : step.b) ^= 1ull << random.below(47);
        break;
      case Step::kCr3:
        stream = Stream::kAddressSpaces;
        step.a ^= 1ull << (12 + random.below(30));
        break;
      default:
        stream = Stream::kTargets;
        step.a ^= 1ull << random.below(47);
        break;
    }
    ++kinds_[static_cast<size_t>(stream)];
    const EpochDigest changed = digest(ipt::VariationConfig::all(seed));
    step = kept;
    const ipt::Comparison found = ipt::compare(plain_, changed);
    const auto& difference = found.differences[static_cast<size_t>(stream)];
    if (found.verdict != ipt::Verdict::kDiffers && found.verdict != ipt::Verdict::kCounterMismatch)
      return false;
    if (plain_.combined() == changed.combined() || !difference) return false;
    for (size_t i = 0; i < ipt::kStreams; ++i)
      if (found.differences[i].has_value() != (i == static_cast<size_t>(stream))) return false;
    const uint64_t item = place(at, stream);
    return stream == Stream::kAddressSpaces ||
           (difference->first_item <= item && item < difference->end_item);
  }
  const uint64_t* kinds() const { return kinds_; }

 private:
  // A step: every stream as often as another, as far as the run has it.
  size_t draw(ipt::VariationRandom& random) const {
    constexpr Step::Kind kWanted[] = {Step::kConditional, Step::kIndirect, Step::kAsync,
                                      Step::kCr3};
    const Step::Kind wanted = kWanted[random.below(std::size(kWanted))];
    const size_t from = (random.next() >> 8) % steps_.size();
    for (size_t i = 0; i < steps_.size(); ++i) {
      const size_t at = (from + i) % steps_.size();
      if (steps_[at].kind == wanted) return at;
    }
    return from;
  }

  // How many items of the stream come before the step.
  uint64_t place(size_t step, Stream stream) const {
    uint64_t n = 0;
    for (size_t i = 0; i < step; ++i) {
      const Step::Kind kind = steps_[i].kind;
      const bool target = kind == Step::kIndirect || kind == Step::kFarBranch;
      n += (stream == Stream::kBranches && kind == Step::kConditional) ||
           (stream == Stream::kTargets && target) ||
           (stream == Stream::kAsync && kind == Step::kAsync);
    }
    return n;
  }

  std::vector<Step> steps_;
  ipt::PacketWriterConfig config_;
  EpochDigest plain_;
  uint64_t kinds_[ipt::kStreams] = {};
};

}  // namespace

int soak_variation(const std::string& trace, uint64_t bytes_max, uint64_t seeds) {
  std::ifstream file(trace, std::ios::binary | std::ios::ate);
  US_CHECK(file.good(), "cannot open {}", trace);
  const auto size = static_cast<uint64_t>(file.tellg());
  const uint64_t bytes = std::min(bytes_max, size);
  // From the middle: there a booted system runs its programs.
  file.seekg(static_cast<std::streamoff>((size - bytes) / 2));
  Bytes piece(bytes);
  file.read(reinterpret_cast<char*>(piece.data()), static_cast<std::streamsize>(bytes));
  Collector collector;
  {
    ipt::Scanner<Collector> scanner(collector);
    scanner.feed(piece);
  }
  const size_t steps = collector.steps.size();
  US_CHECK(steps != 0, "no whole epoch begins in these bytes");
  Soak soak(std::move(collector.steps), collector.first_mode);
  uint64_t other_digests = 0, changes_missed = 0;
  ipt::VariationRandom random(seeds);
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    const EpochDigest digest = soak.digest(ipt::VariationConfig::all(seed));
    if (digest.combined() != soak.plain().combined() || digest.loss.any()) {
      ++other_digests;
      std::printf("seed %lu gives another digest\n", seed);
    }
    if (!soak.change_shows(random, seed)) {
      ++changes_missed;
      std::printf("a change drawn with seed %lu does not show where it is\n", seed);
    }
  }
  const uint64_t* kinds = soak.kinds();
  std::printf(
      "%zu steps, %lu branches, %lu targets, %lu events; %lu seeds: %lu gave another digest; "
      "of %lu single changes (%lu T, %lu I, %lu A, %lu C) %lu were missed or misplaced\n",
      steps, soak.plain().branches(), soak.plain().stream(Stream::kTargets).items,
      soak.plain().stream(Stream::kAsync).items, seeds, other_digests, seeds, kinds[0], kinds[1],
      kinds[2], kinds[3], changes_missed);
  return other_digests == 0 && changes_missed == 0 ? 0 : 1;
}

}  // namespace us::test
