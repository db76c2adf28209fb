// The normal form of a guest's trace: what two runs of the same instruction stream have in common,
// however their processors cut the packets. Bytes go in as they come; at the end of an epoch a
// digest of its five streams comes out. Nothing of the trace is kept beyond one leaf of each
// stream.
//
// What is dropped, and why it may be: PSB+ (status, by byte count), PAD and timing, VMCS, repeats
// of MODE.Exec, the size of TNTs, address compression, the order of TIPs against TNTs (TIPs may be
// deferred, SDM 3C 35.4.2.3; the two meet again at FUPs), and exits that resume where they left or
// within an instruction's length behind: there a monitor executed it (CPUID, IN, ...), which was no
// branch, and another run may have left the guest once more between it and what came next.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

#include "base/bytes.h"
#include "ipt/epoch_digest.h"
#include "ipt/packets.h"
#include "ipt/scanner.h"

namespace us::ipt {

enum class AsyncKind : uint64_t {
  // Interrupt, exception: FUP, TIP. Also an exit that resumed elsewhere (FUP, TIP.PGD, TIP.PGE):
  // one that a monitor delivered, and whether it or the processor did differs from run to run.
  kEvent = 1,
  kStop = 3,     // TIP.PGD without a FUP, and where tracing went on
  kLoneFup = 4,  // a FUP nothing followed
};

// The longest instruction. SDM 2A 2.3.11.
constexpr uint64_t kMaxInstructionBytes = 15;

struct NormalFormOptions {
  TraceSetup setup;
  // A system-wide trace: the host is in the stream too. Root operation (PIP with NR=0) is left out,
  // and VM exits and entries become what they are in a guest-only trace (SDM 3C 35.5.2.1).
  bool system_wide = false;
};

// The scanner's sink that builds the streams. Use NormalForm, below.
class NormalFormSink {
 public:
  static constexpr uint32_t kLeafBytes = 1024;
  static constexpr uint32_t kBranchesPerLeaf = 8 * kLeafBytes;
  static constexpr uint32_t kTargetsPerLeaf = kLeafBytes / 8;
  static constexpr uint32_t kEventsPerLeaf = 16;
  static constexpr uint32_t kEventWords = 5;      // kind, from, to, branches so far, targets so far
  static constexpr uint32_t kValuesPerLeaf = 16;  // streams C and E
  static constexpr bool kWantsPads = false;

  struct Fast {
    uint64_t bits;      // the low `held` bits await their byte
    unsigned held;      // below 8
    uint8_t* branches;  // next byte of the branch leaves
    uint64_t* targets;  // next word of the target leaves
    const uint8_t* branches_end;
    const uint64_t* targets_end;

    void tnt(uint64_t more, unsigned n) {
      bits = (bits << n) | more;
      held += n;
      // Left-aligned, so that the oldest branch is the top bit of the first byte.
      const uint64_t out = __builtin_bswap64((bits << 1) << (63 - held));
      std::memcpy(branches, &out, sizeof out);
      branches += held / 8;
      held %= 8;
    }
    void tip(uint64_t ip) { *targets++ = ip; }
    void pads(unsigned) {}
    // TNTs take at least a byte for six branches, TIPs three bytes.
    ptrdiff_t room() const {
      const ptrdiff_t for_branches = branches_end - branches;
      const ptrdiff_t for_targets = 3 * (targets_end - targets);
      return for_branches < for_targets ? for_branches : for_targets;
    }
  };

  explicit NormalFormSink(const NormalFormOptions& options);
  // Fast holds pointers into the sink.
  NormalFormSink(const NormalFormSink&) = delete;
  NormalFormSink& operator=(const NormalFormSink&) = delete;

  bool plain() const { return state_ == 0; }
  Fast begin_fast() { return fast_; }
  void end_fast(const Fast& fast) {
    fast_ = fast;
    hash_full_leaves();
  }
  void packet(const Packet& packet);
  void pads(uint64_t) {}
  void damage(uint64_t offset);

  // Whatever was known of where the trace stands is not known any more.
  void note_aux_flags(uint32_t flags);
  void note_position(uint64_t ip);
  void note_delivery(uint64_t from, uint64_t to);
  void note_cut_packet() { loss_.cut_packet = true; }
  void note_error() { ++loss_.errors; }
  void note_skipped(uint64_t bytes) { loss_.skipped_bytes += bytes; }
  uint64_t branches() const;
  uint64_t targets() const;
  // Finishes the epoch and begins the next.
  EpochDigest end_epoch(const EpochBounds& bounds);

 private:
  // Why TNT and TIP need more than appending. Several may hold at once.
  enum State : uint32_t {
    kInPsb = 1,        // between PSB and PSBEND: status only
    kFupPending = 2,   // a FUP awaits its TIP or TIP.PGD
    kDisabled = 4,     // between TIP.PGD and TIP.PGE
    kFupIsStatus = 8,  // the next FUP belongs to OVF, PTW, … and is no event
    kInHost = 16,      // root operation in a system-wide trace
    kEntering = 32,    // the next TIP is a VM entry's
  };
  // What the TIP.PGD that disabled tracing was.
  enum class Pause : uint8_t { kNone, kExit, kStop, kEpochEnd };

  // Leaves gathered before any is hashed, so that the scanner runs on for a while.
  static constexpr size_t kLeaves = 8;
  // Room beyond them, as the scanner asks for; and each addition of branches stores eight bytes.
  static constexpr size_t kBranchSlack = 240 / 8 + 10;
  static constexpr size_t kTargetSlack = 12;

  void status_packet(const Packet& packet);
  void flow_packet(const Packet& packet);
  void host_packet(const Packet& packet);
  void on_tnt(const Packet& packet);
  void on_tip(uint64_t ip);
  void on_fup(uint64_t ip);
  void on_disable(const Packet& packet);
  void on_enable(uint64_t ip);
  void on_pip(const Packet& packet);
  void on_mode(uint8_t mode);
  void on_overflow();
  bool any_flow() const { return flow_seen_ || branches() != 0 || targets() != 0; }
  void settle_lone_fup();
  void pause_at_exit();
  void event(AsyncKind kind, uint64_t from, uint64_t to, uint64_t branches, uint64_t targets);
  void hash_full_leaves() {
    if (fast_.branches - branch_leaves_.data() >= kLeafBytes) hash_branch_leaves();
    if (fast_.targets - target_leaves_.data() >= kTargetsPerLeaf) hash_target_leaves();
  }
  void hash_branch_leaves();
  void hash_target_leaves();
  void begin_streams();
  StreamDigest finish_branches();
  StreamDigest finish_targets();

  // A short stream of words, hashed leaf by leaf.
  template <uint32_t kItems, uint32_t kWords>
  struct WordStream {
    StreamHasher hasher{kItems};
    std::array<uint64_t, static_cast<size_t>(kItems) * kWords> leaf{};
    uint32_t used = 0;
    uint64_t items = 0;

    void add(const std::array<uint64_t, kWords>& item) {
      for (const uint64_t word : item) leaf[used++] = word;
      ++items;
      if (used == leaf.size()) flush();
    }
    void flush() {
      hasher.add_leaf({reinterpret_cast<const uint8_t*>(leaf.data()), used * sizeof(uint64_t)});
      used = 0;
    }
    StreamDigest finish() {
      if (used != 0) flush();
      return hasher.finish(std::exchange(items, 0));
    }
  };

  NormalFormOptions options_;
  uint32_t state_ = 0;
  Fast fast_{};
  StreamHasher branch_hasher_{kBranchesPerLeaf};
  StreamHasher target_hasher_{kTargetsPerLeaf};
  WordStream<kEventsPerLeaf, kEventWords> events_;
  WordStream<kValuesPerLeaf, 1> address_spaces_;
  WordStream<kValuesPerLeaf, 1> modes_;

  TraceLoss loss_;
  Pause pause_ = Pause::kNone;
  bool enabled_known_ = false;  // a TIP.PGE was seen and no TIP.PGD since
  bool flow_seen_ = false;      // events or exits in this epoch; see any_flow()
  uint64_t from_ip_ = 0;        // of the pending FUP, or of the pause
  uint64_t from_branches_ = 0;
  uint64_t from_targets_ = 0;
  std::optional<uint64_t> first_ip_;
  std::optional<uint8_t> first_mode_;
  std::optional<uint64_t> last_cr3_;  // in this epoch
  std::optional<uint8_t> mode_;       // carried from epoch to epoch: repeats are told by it

  alignas(8) std::array<uint8_t, kLeaves * kLeafBytes + kBranchSlack> branch_leaves_;
  std::array<uint64_t, kLeaves * kTargetsPerLeaf + kTargetSlack> target_leaves_;
};

class NormalForm {
 public:
  explicit NormalForm(const NormalFormOptions& options = {}) : sink_(options), scanner_(sink_) {}

  // The next bytes of the trace.
  void feed(ByteSpan bytes) { scanner_.feed(bytes); }
  // Flags of the capture that mean loss (PERF_RECORD_AUX: TRUNCATED 1, OVERWRITE 2, PARTIAL 4,
  // COLLISION 8).
  void note_aux_flags(uint32_t flags) { sink_.note_aux_flags(flags); }
  // As TraceSink::stands() and delivered(): the same as if the guest had been entered there, and
  // had been left again after the event.
  void note_position(uint64_t ip) { sink_.note_position(ip); }
  void note_delivery(uint64_t from, uint64_t to) { sink_.note_delivery(from, to); }

  // Call when every byte of the epoch was fed. An epoch ends at a VM exit, where TIP.PGD forces out
  // every packet.
  EpochDigest end_epoch(const EpochBounds& bounds = {});

  uint64_t branches() const { return sink_.branches(); }
  uint64_t targets() const { return sink_.targets(); }
  Scanner<NormalFormSink>& scanner() { return scanner_; }

 private:
  NormalFormSink sink_;
  Scanner<NormalFormSink> scanner_;
  uint64_t skipped_before_ = 0;  // up to the current epoch
};

}  // namespace us::ipt
