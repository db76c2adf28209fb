// What one epoch's trace comes down to: a digest of each stream of its normal form, with what must
// travel along to compare it. Written to the log by the primary, compared by the secondary.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "ipt/stream_digest.h"

namespace us::ipt {

// The streams of the normal form. None depends on how the processor cut its packets.
enum class Stream : uint8_t {
  kBranches,       // T: conditional branches, one bit each
  kTargets,        // I: addresses of indirect and far branches
  kAsync,          // A: asynchronous transfers and moved exits, each with its place in T and I
  kAddressSpaces,  // C: CR3 values written
  kModes,          // E: execution modes entered
};
constexpr size_t kStreams = 5;
std::string_view name_of(Stream stream);  // "T", "I", "A", "C", "E"

constexpr uint16_t kNormalFormVersion = 1;

// Branch packets and uncompressed returns, no timing: BranchEn and DisRETC with the driver's PT
// bit, as IA32_RTIT_CTL (SDM 3C, table "IA32_RTIT_CTL MSR").
constexpr uint64_t kWitnessConfig = 0x2801;

// How the trace was taken. Digests of different setups are not comparable.
struct TraceSetup {
  uint64_t config = kWitnessConfig;
  // Addresses are linear (CPUID.14H:ECX[31]); equal to effective ones only while CS.base is 0.
  bool linear_addresses = false;
  uint32_t errata = 0;  // workarounds in effect, one bit each
  bool operator==(const TraceSetup&) const = default;
};

struct EpochPosition {
  uint64_t branches = 0;
  uint64_t rip = 0;
  uint64_t rcx = 0;
  bool operator==(const EpochPosition&) const = default;
};

struct EpochBounds {
  uint64_t epoch = 0;
  EpochPosition start;
  EpochPosition end;
  bool operator==(const EpochBounds&) const = default;
};

// What a capture lost. The low bits are the kernel's own, PERF_AUX_FLAG_*; all others are ours.
namespace loss_flag {
constexpr uint32_t kTruncated = 1;          // the buffer was full, and tracing stopped
constexpr uint32_t kOverwritten = 2;        // old trace was written over
constexpr uint32_t kPartial = 4;            // gaps: tracing was off inside the stretch
constexpr uint32_t kCollision = 8;          // another user of the hardware
constexpr uint32_t kRecordsLost = 1 << 16;  // PERF_RECORD_LOST: any of the above may be missing
constexpr uint32_t kThrottled = 1 << 17;    // PERF_RECORD_THROTTLE
constexpr uint32_t kBadRecord = 1 << 18;    // the ring of records makes no sense
constexpr uint32_t kBadPosition = 1 << 19;  // the buffer's head makes no sense
constexpr uint32_t kBadPackets = 1 << 20;   // packets that cannot be, or end within the guest
constexpr uint32_t kNotTraced = 1 << 21;    // the event has lost the hardware, or never had it
constexpr uint32_t kSinkRefused = 1 << 22;  // who asked for the trace had no room for it
}  // namespace loss_flag

// Why a trace cannot vouch for its epoch. Any of these makes the verdict "unknown".
struct TraceLoss {
  uint32_t overflows = 0;      // OVF packets
  uint32_t errors = 0;         // damaged bytes, or packets that cannot follow one another
  uint32_t aux_flags = 0;      // loss_flag
  uint64_t skipped_bytes = 0;  // in no packet: before the first PSB, or after damage
  bool cut_packet = false;     // the epoch's bytes ended within a packet
  bool any() const {
    return overflows != 0 || errors != 0 || aux_flags != 0 || skipped_bytes != 0 || cut_packet;
  }
  bool operator==(const TraceLoss&) const = default;
  // The one reason that explains the others best: "the trace buffer was full". Empty: no loss.
  std::string_view reason() const;
};

struct EpochDigest {
  uint16_t version = kNormalFormVersion;
  TraceSetup setup;
  EpochBounds bounds;
  TraceLoss loss;
  // Where tracing began (TIP.PGE before anything else) and ended (FUP of the last exit), if it did.
  std::optional<uint64_t> first_ip;
  std::optional<uint64_t> last_ip;
  // The mode at the start. Unknown after a loss; then the mode streams cannot be compared.
  std::optional<uint8_t> first_mode;
  std::array<StreamDigest, kStreams> streams;

  bool operator==(const EpochDigest&) const = default;
  const StreamDigest& stream(Stream s) const { return streams[static_cast<size_t>(s)]; }
  uint64_t branches() const { return stream(Stream::kBranches).items; }
  // With return compression off one TNT bit is one conditional branch (SDM 3C 35.4.2.1), so the
  // trace and the branch counter vouch for one another.
  bool counter_agrees() const { return branches() == bounds.end.branches - bounds.start.branches; }
  // All streams as one: equal normal forms, equal digests. Positions and losses are not part of it.
  Digest combined() const;

  // The encoding; it travels inside a log record, which brings length and checksum. Varints are
  // LEB128, words little-endian:
  //   u16 version; u8 flags (1 first_ip, 2 last_ip, 4 linear addresses, 8 cut packet, 16
  //   first_mode); varints config, errata, epoch; start and end (varint branches, u64 rip, varint
  //   rcx each); varints overflows, errors, aux flags, skipped bytes; u64 first_ip, u64 last_ip, u8
  //   first_mode as flagged; then T, I, A, C, E: varints items, items per leaf; u8 log2 of leaves
  //   per block; u128 digest; u8 blocks (at most 16) and a u64 sub-hash each.
  void encode(ByteWriter& out) const;
};

enum class DigestDecodeError : uint8_t { kTruncated, kUnknownVersion, kOutOfBounds };
// Reads what encode() wrote. The input may be hostile: sizes are bounded before anything is kept.
Result<EpochDigest, DigestDecodeError> decode_epoch_digest(ByteReader& in);

enum class Verdict : uint8_t {
  kEqual,
  kDiffers,          // control flow differs
  kUnknown,          // trace was lost on a side: compare states instead, report no divergence
  kCounterMismatch,  // a trace's branches are not the counter's: counter or trace at fault
  kIncomparable,     // different epochs, versions or setups
};
std::string_view name_of(Verdict verdict);

struct Comparison {
  Verdict verdict = Verdict::kEqual;
  std::array<std::optional<StreamDifference>, kStreams> differences;
  bool start_differs = false;  // first_ip or first_mode
  bool end_differs = false;    // last_ip, or the bounds' ends
  bool mismatch_a = false;     // which side's counter and trace disagree
  bool mismatch_b = false;
  // kUnknown: why, and of which side ("second: the trace buffer was full").
  std::string unknown_because;
  std::optional<Stream> first_stream() const;
  // One line: "differs: T block 3 (branches 24576..32767)".
  std::string text() const;
};

Comparison compare(const EpochDigest& a, const EpochDigest& b);

}  // namespace us::ipt
