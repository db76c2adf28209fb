#include "ipt/scanner.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include "tests/unit/ipt/libipt_oracle.h"
#include "tests/unit/ipt/trace_run.h"

namespace us::ipt::test {
namespace {

// Records what the scanner says, the hot packets in the coarser form they come in.
struct Recorder {
  static constexpr bool kWantsPads = true;
  struct Fast {
    std::vector<bool>* branches;
    std::vector<uint64_t>* targets;
    uint64_t pad_bytes = 0;
    void tnt(uint64_t bits, unsigned n) {
      CHECK(n <= 48);
      const uint64_t above = bits >> n;
      CHECK(above == 0);
      for (unsigned i = n; i-- > 0;) branches->push_back(((bits >> i) & 1) != 0);
    }
    void tip(uint64_t ip) { targets->push_back(ip); }
    void pads(unsigned n) { pad_bytes += n; }
    ptrdiff_t room() const { return 100; }
  };

  bool fast_allowed = true;
  std::vector<bool> branches;
  std::vector<uint64_t> targets;
  std::vector<Packet> others;
  uint64_t pad_bytes = 0;
  std::vector<uint64_t> damages;

  bool plain() const { return fast_allowed; }
  Fast begin_fast() { return {&branches, &targets}; }
  void end_fast(const Fast& fast) { pad_bytes += fast.pad_bytes; }
  void packet(const Packet& packet) {
    switch (packet.kind) {
      case PacketKind::kTnt8:
      case PacketKind::kTnt64: begin_fast().tnt(packet.value, packet.bits); break;
      case PacketKind::kTip:
        if (packet.ip_bytes != 0) {
          targets.push_back(packet.ip);
        } else {
          others.push_back(packet);
        }
        break;
      case PacketKind::kPad: ++pad_bytes; break;
      default: others.push_back(packet);
    }
  }
  void pads(uint64_t n) { pad_bytes += n; }
  void damage(uint64_t offset) { damages.push_back(offset); }

  bool operator==(const Recorder& other) const {
    if (others.size() != other.others.size()) return false;
    for (size_t i = 0; i < others.size(); ++i) {
      if (!same(others[i], other.others[i]) || others[i].ip != other.others[i].ip) return false;
    }
    return branches == other.branches && targets == other.targets && pad_bytes == other.pad_bytes &&
           damages == other.damages;
  }
};

struct Scanned {
  Recorder found;
  uint64_t skipped = 0;
  size_t pending = 0;
  bool operator==(const Scanned& other) const {
    return found == other.found && skipped == other.skipped && pending == other.pending;
  }
};

enum class Kernel { kAvx2, kPortable, kNone };

// Feeds `bytes` in pieces of 1 … max_piece bytes.
Scanned scan(ByteSpan bytes, size_t max_piece = ~size_t{0}, uint64_t seed = 1,
             Kernel kernel = Kernel::kAvx2) {
  Scanned out;
  out.found.fast_allowed = kernel != Kernel::kNone;
  Scanner<Recorder> scanner(out.found);
  if (kernel == Kernel::kPortable) scanner.use_portable_kernel();
  VariationRandom random(seed);
  while (!bytes.empty()) {
    size_t n = bytes.size();
    if (max_piece < n) n = std::min<size_t>(n, 1 + random.below(max_piece));
    scanner.feed(bytes.first(n));
    bytes = bytes.subspan(n);
  }
  out.skipped = scanner.skipped_bytes();
  out.pending = scanner.pending_bytes();
  return out;
}

// What libipt's packets come to in the recorder's form.
Recorder expected_from(const LibiptScan& theirs) {
  Recorder out;
  uint64_t last_ip = 0;
  for (Packet packet : theirs.packets) {
    switch (packet.kind) {
      case PacketKind::kPsb:
      case PacketKind::kOvf: last_ip = 0; break;
      case PacketKind::kTip:
      case PacketKind::kTipPge:
      case PacketKind::kTipPgd:
      case PacketKind::kFup:
        last_ip = expand_ip(packet.ip_bytes, packet.value, last_ip);
        packet.ip = last_ip;
        break;
      default: break;
    }
    out.packet(packet);
  }
  return out;
}

void check_same_as_libipt(ByteSpan bytes) {
  const LibiptScan theirs = libipt_scan(bytes);
  Recorder expected = expected_from(theirs);
  Scanned ours = scan(bytes);
  CHECK(ours.found.damages.size() == theirs.errors);
  for (Packet& packet : ours.found.others) {
    const uint64_t ip = packet.ip;
    packet = comparable(packet);
    packet.ip = ip;
  }
  expected.damages = ours.found.damages;
  CHECK(ours.found == expected);
}

Bytes varied_trace(uint64_t seed, size_t steps) {
  return trace_of(random_run(seed, steps),
                  {.psb_period = 2048, .variation = VariationConfig::all(seed)});
}

// Any order of what the kernels take in stride: runs of PADs and short TNTs of any length, long
// TNTs and TIPs of every form; now and then something they leave to the parser.
Bytes hot_packets(uint64_t seed) {
  VariationRandom random(seed);
  Bytes out(kPsbPacket, kPsbPacket + kPsbBytes);
  out.insert(out.end(), {opcode::kExtended, extended::kPsbEnd});
  const uint64_t longest = random.one_in(4) ? 6000 : random.one_in(2) ? 60 : 4;
  const auto add = [&](uint64_t value, unsigned bytes) {
    for (; bytes != 0; --bytes, value >>= 8) out.push_back(static_cast<uint8_t>(value));
  };
  while (out.size() < 20000) {
    for (uint64_t n = random.below(longest); n != 0; --n) {
      const uint64_t bits = random.below(kTnt8MaxBits + 1);  // 0: a PAD
      add(bits == 0 ? 0 : (1ull << bits | (random.next() >> (64 - bits))) << 1, 1);
    }
    if (random.one_in(4)) {
      const uint64_t bits = 1 + random.below(kTnt64MaxBits);
      add(opcode::kExtended | extended::kTnt64 << 8, 2);
      add(1ull << bits | (random.next() >> (64 - bits)), 6);
    } else if (random.one_in(200)) {
      add(opcode::kExtended | extended::kCbr << 8, 4);
    } else {
      constexpr unsigned kForms[] = {0, 1, 1, 1, 2, 2, 3, 3, 4, 6};
      const unsigned ip_bytes = kForms[random.below(std::size(kForms))];
      add(opcode::kTip | ip_bytes << 5, 1);
      add(random.next(), ip_payload_bytes(ip_bytes));
    }
  }
  return out;
}

// Random damage: bytes changed, removed, put in.
void damage_bytes(Bytes& bytes, VariationRandom& random) {
  for (uint64_t n = 1 + random.below(8); n != 0 && !bytes.empty(); --n) {
    const size_t at = random.next() % bytes.size();
    switch (random.below(3)) {
      case 0: bytes[at] = static_cast<uint8_t>(random.next() >> 32); break;
      case 1: bytes.erase(bytes.begin() + static_cast<ptrdiff_t>(at)); break;
      default: bytes.insert(bytes.begin() + static_cast<ptrdiff_t>(at), opcode::kExtended); break;
    }
  }
}

// Damage can make packets that libipt 2.0 does not know, and calls errors.
bool has_newer_packet(const Scanned& scanned) {
  return std::any_of(scanned.found.others.begin(), scanned.found.others.end(),
                     [](const Packet& packet) { return newer_than_libipt(packet.kind); });
}

// A copy whose last byte is the last before an inaccessible page.
class GuardedBytes {
 public:
  explicit GuardedBytes(ByteSpan bytes) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t rounded = (bytes.size() + page - 1) / page * page;
    size_ = rounded + page;
    map_ = static_cast<uint8_t*>(
        mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(map_ != MAP_FAILED);
    REQUIRE(mprotect(map_ + rounded, page, PROT_NONE) == 0);
    view_ = {map_ + rounded - bytes.size(), bytes.size()};
    std::memcpy(map_ + rounded - bytes.size(), bytes.data(), bytes.size());
  }
  ~GuardedBytes() { munmap(map_, size_); }
  GuardedBytes(const GuardedBytes&) = delete;
  GuardedBytes& operator=(const GuardedBytes&) = delete;
  ByteSpan view() const { return view_; }

 private:
  uint8_t* map_ = nullptr;
  size_t size_ = 0;
  ByteSpan view_;
};

}  // namespace

TEST_CASE("written traces give the packets that libipt's packet decoder finds") {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    CAPTURE(seed);
    check_same_as_libipt(varied_trace(seed, 3000));
    check_same_as_libipt(trace_of(random_run(seed, 3000), {.psb_period = 512}));
    check_same_as_libipt(trace_of(random_run(seed, 3000), {.psb_period = 512, .long_tnt = true}));
  }
}

TEST_CASE("damaged traces give libipt's packets and errors, going on at the next PSB") {
  size_t damaged = 0;
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    CAPTURE(seed);
    VariationRandom random(seed);
    Bytes bytes = varied_trace(seed, 1000);
    damage_bytes(bytes, random);
    const Scanned ours = scan(bytes);
    if (has_newer_packet(ours)) continue;
    check_same_as_libipt(bytes);
    damaged += ours.found.damages.size();
  }
  CHECK(damaged > 100);
}

TEST_CASE("a PSB whose first bytes a damaged packet swallowed is still found") {
  Bytes bytes = trace_of({{Step::kIndirect, 0x1234}});
  bytes.push_back(opcode::kTip | 6 << 5);  // takes eight bytes of the PSB that follows
  bytes.insert(bytes.end(), kPsbPacket, kPsbPacket + kPsbBytes);
  bytes.insert(bytes.end(), {opcode::kExtended, extended::kPsbEnd, 0x06});
  bytes.insert(bytes.end(), kPsbBytes, opcode::kPad);
  check_same_as_libipt(bytes);
  const Scanned ours = scan(bytes);
  CHECK(ours.found.damages.size() == 1);
  CHECK(ours.found.branches == std::vector<bool>{true});
  CHECK(scan(bytes, 1) == ours);
}

TEST_CASE("a trace fed in pieces of any size is the same as fed whole") {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    VariationRandom random(seed);
    Bytes bytes = varied_trace(seed, 1500);
    if (random.one_in(2)) damage_bytes(bytes, random);
    const Scanned whole = scan(bytes);
    for (const size_t max_piece : {1, 2, 7, 16, 63, 64, 65, 200, 1000}) {
      CAPTURE(max_piece);
      CHECK(scan(bytes, max_piece, seed) == whole);
    }
  }
}

TEST_CASE("the word-wise kernels find what the packet parser alone finds") {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    VariationRandom random(seed);
    Bytes bytes = varied_trace(seed, 1500);
    if (random.one_in(2)) damage_bytes(bytes, random);
    const Scanned slow = scan(bytes, ~size_t{0}, 1, Kernel::kNone);
    CHECK(scan(bytes, ~size_t{0}, 1, Kernel::kPortable).found == slow.found);
    if (has_avx2_kernel()) CHECK(scan(bytes, ~size_t{0}, 1, Kernel::kAvx2).found == slow.found);
  }
}

TEST_CASE("the kernels take runs, long TNTs and TIPs of every length as the packet parser does") {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    CAPTURE(seed);
    const Bytes bytes = hot_packets(seed);
    const Scanned slow = scan(bytes, ~size_t{0}, 1, Kernel::kNone);
    CHECK(slow.found.damages.empty());
    CHECK(scan(bytes, ~size_t{0}, 1, Kernel::kPortable) == slow);
    if (has_avx2_kernel()) CHECK(scan(bytes, ~size_t{0}, 1, Kernel::kAvx2) == slow);
    CHECK(scan(bytes, 700, seed) == slow);
  }
}

TEST_CASE("nothing is read past the end, wherever the trace is cut") {
  const Bytes bytes = varied_trace(3, 600);
  for (size_t n = 1; n < bytes.size() && n < 1200; ++n) {
    const GuardedBytes guarded(ByteSpan(bytes).first(n));
    const Scanned ours = scan(guarded.view());
    CHECK(ours.pending < kMaxPacketBytes);
  }
}

TEST_CASE("bytes before the first PSB are skipped and counted, not errors") {
  Bytes bytes = {0x04, 0x02, 0x82, 0xff, 0x02};
  const size_t before = bytes.size();
  const Bytes trace = trace_of({{Step::kConditional, 1}});
  bytes.insert(bytes.end(), trace.begin(), trace.end());
  const Scanned ours = scan(bytes);
  CHECK(ours.found.damages.empty());
  CHECK(ours.skipped == before);
  CHECK(ours.found.branches == std::vector<bool>{true});
}

TEST_CASE("a stream without any PSB is skipped whole") {
  const Bytes bytes(5000, 0xfe);
  const Scanned ours = scan(bytes);
  CHECK(ours.skipped == bytes.size());
  CHECK(ours.found.branches.empty());
  CHECK(scan(bytes, 7) == ours);
}

TEST_CASE("block items are skipped as one packet until the block ends") {
  Bytes bytes(kPsbPacket, kPsbPacket + kPsbBytes);
  const Bytes block = {0x02, 0x23, 0x02, 0x63, 0x04, 0x0c, 0xfe, 0xfe, 0xfe,
                       0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x02, 0x33, 0x0c};
  bytes.insert(bytes.end(), block.begin(), block.end());
  bytes.insert(bytes.end(), 64, opcode::kPad);
  const Scanned ours = scan(bytes);
  CHECK(ours.found.damages.empty());
  CHECK(ours.found.branches == std::vector<bool>{true, false});
}

}  // namespace us::ipt::test
