// Log records: what a recording is made of, and what a primary sends its secondary. Plain values;
// nothing here knows a machine. docs/log-format.md describes the bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "base/bytes.h"
#include "base/digest.h"

namespace us::log {

// Ids are written to disk: never renumbered, never reused. 1..127.
enum class RecordType : uint8_t {
  kAnchor = 1,
  kNetFrame = 2,
  kDiskDone = 3,
  kConsole = 4,
  kCommand = 5,
  kStateDigest = 6,
  kPtDigest = 7,
  kMarker = 8,
  kSection = 9,
  kEnd = 10,
};
constexpr uint8_t kRecordTypeMax = 127;

// Bounds, in bytes, that writer and reader both hold to.
constexpr size_t kNetFrameBytesMax = 128 * 1024;  // virtio-net with offloads: 64 KiB + headers
constexpr size_t kDiskDataBytesMax = 16 * 1024 * 1024;
constexpr size_t kConsoleBytesMax = 64 * 1024;
constexpr size_t kPtDigestBytesMax = 4096;
constexpr size_t kSectionBytesMax = 16 * 1024 * 1024;  // larger sections are split: see Section
constexpr size_t kNameBytesMax = 64;
constexpr size_t kTextBytesMax = 4096;
constexpr size_t kRecordBodyMax = 16 * 1024 * 1024 + 4096;
constexpr uint32_t kVcpuMax = 63;  // highest vCPU id

// Where in the guest's instruction stream a record belongs. Within one vCPU's records `branches`
// never falls, nor does `instructions` where known.
struct Position {
  uint64_t branches = 0;
  uint64_t rip = 0;
  // Only where branches and rip do not tell the place (inside a REP instruction, repeated places).
  std::optional<uint64_t> rcx{};
  uint64_t instructions = 0;  // 0: the backend does not count them
  // A hash of more guest state, for the places that repeat branches and rip; its rule is the
  // engine's.
  std::optional<uint32_t> tie{};

  bool operator==(const Position&) const = default;
};

// The guest clock's new anchor. tsc_ceiling >= tsc.
struct Anchor {
  uint64_t branches = 0;  // usually the position's
  uint64_t tsc = 0;
  uint64_t ticks_per_branch_q32 = 0;
  uint64_t tsc_ceiling = 0;
  bool operator==(const Anchor&) const = default;
};

// A frame arrived for a network device. At most kNetFrameBytesMax.
struct NetFrame {
  uint8_t device = 0;
  Bytes frame{};
  bool operator==(const NetFrame&) const = default;
};

// A disk request is over.
enum class DiskOutcome : uint8_t {
  kFailed = 0,  // I/O error
  kDone = 1,    // no data comes with it: a write, a flush, a discard
  kData = 2,    // a read; `data` holds what it returned
  kReRead = 3,  // a read of an unchanged image: read `length` bytes at `offset` again
};
struct DiskDone {
  uint8_t device = 0;
  uint32_t request = 0;
  DiskOutcome outcome = DiskOutcome::kDone;
  Bytes data{};           // kData only
  uint64_t offset = 0;    // kReRead only, bytes
  uint64_t length = 0;    // kReRead only, bytes, at most kDiskDataBytesMax
  uint32_t data_crc = 0;  // kReRead only: CRC-32C of the bytes then read, to see a changed image
  bool operator==(const DiskDone&) const = default;
};

// Bytes typed on a console. At most kConsoleBytesMax.
struct Console {
  uint8_t device = 0;
  Bytes bytes{};
  bool operator==(const Console&) const = default;
};

// An operator's command; codes and arguments are the engine's.
struct Command {
  uint8_t code = 0;
  uint64_t argument = 0;
  bool operator==(const Command&) const = default;
};

// What both sides must agree on at the end of an epoch. `width` is how many low bytes of each
// digest are kept in the log: 4 or 8; the values must fit it.
struct StateDigest {
  uint64_t epoch = 0;
  uint8_t width = 8;
  uint64_t registers = 0;
  uint64_t devices = 0;
  std::optional<uint64_t> memory{};
  bool operator==(const StateDigest&) const = default;
};

// The epoch's normal form of the guest's processor trace: opaque here. At most kPtDigestBytesMax.
struct PtDigest {
  uint64_t epoch = 0;
  Bytes blob{};
  bool operator==(const PtDigest&) const = default;
};

enum class MarkerKind : uint8_t { kCheckpoint = 1, kSnapshot = 2, kGoLive = 3, kNote = 4 };
struct Marker {
  MarkerKind kind = MarkerKind::kNote;
  uint64_t id = 0;
  std::string text{};  // at most kTextBytesMax
  bool operator==(const Marker&) const = default;
};

// A named, opaque piece of the machine's description: "vm", "boot", "images", "host", "pmu",
// "snapshot"... A section larger than kSectionBytesMax comes in parts, in order, the first at
// offset 0; it is whole when offset + data.size() == total. See split_section and SectionJoiner.
struct Section {
  std::string name{};  // 1..kNameBytesMax of a-z 0-9 _ - .
  uint64_t offset = 0;
  uint64_t total = 0;
  Bytes data{};
  bool operator==(const Section&) const = default;
};

enum class EndReason : uint8_t {
  kGuestPoweredOff = 1,
  kStoppedByUser = 2,
  kSizeLimit = 3,
  kTimeLimit = 4,
  kGuestFailed = 5,
  kDiskFull = 6,
  kOther = 7,
};
// The last record of a complete log.
struct End {
  EndReason reason = EndReason::kOther;
  Digest final_digest{};
  uint64_t instructions = 0;
  uint64_t branches = 0;
  uint64_t guest_ticks = 0;
  uint64_t epochs = 0;
  uint64_t records = 0;  // before this one; 0: not told
  std::string text{};    // at most kTextBytesMax
  bool operator==(const End&) const = default;
};

// A record of a type this build does not know, marked skippable by who wrote it. Its position is
// part of the body, so Record::at and ::vcpu stay zero.
struct Unknown {
  uint8_t type = 0;
  Bytes body{};  // undecoded, position and all
  bool operator==(const Unknown&) const = default;
};

using Body = std::variant<Anchor, NetFrame, DiskDone, Console, Command, StateDigest, PtDigest,
                          Marker, Section, End, Unknown>;

struct Record {
  Position at{};
  Body body{};
  uint32_t vcpu = 0;
  // A reader that does not know the type may go on without it. Costs size: such a record is coded
  // without reference to the records before it.
  bool skippable = false;
  bool operator==(const Record&) const = default;
};

uint8_t type_of(const Body& body);
// "anchor", "net-frame", ...; "type-N" for a type unknown here. Stable: used in dumps and by_type.
std::string type_name(uint8_t type);
const char* name_of(DiskOutcome outcome);
const char* name_of(MarkerKind kind);
const char* name_of(EndReason reason);

// Whether a record holds to every bound above; the writer checks it, the reader refuses what fails.
bool within_bounds(const Record& record);
bool valid_section_name(std::string_view name);

// A section of any size as records' bodies, in order. At least one, also for empty data.
std::vector<Section> split_section(std::string_view name, ByteSpan data,
                                   size_t part_bytes = kSectionBytesMax);

// Puts the parts of one section together again.
class SectionJoiner {
 public:
  enum class State : uint8_t { kPartial, kWhole, kBroken };
  // `bytes_max` bounds what a hostile log can make us hold.
  explicit SectionJoiner(uint64_t bytes_max) : bytes_max_(bytes_max) {}
  // kBroken: a gap, a total that changed, or past bytes_max. Stays so.
  State add(const Section& part);
  const Bytes& data() const { return data_; }

 private:
  uint64_t bytes_max_;
  uint64_t total_ = 0;
  bool started_ = false;
  State state_ = State::kPartial;
  Bytes data_;
};

}  // namespace us::log
