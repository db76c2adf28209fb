// What a primary and its secondary say to one another, and the bytes of it. Plain values and a
// bounded parser; no socket, no clock. docs/channel-protocol.md describes every byte.
//
// On the wire a message is: length of the body (u32), type (u16), reserved zero (u16), CRC-32C of
// type and body (u32; zero for kFrame, whose body carries its own), body. The first message of each
// direction is the frozen greeting: Hello and Welcome may grow at their end, never change at their
// start.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "base/bytes.h"
#include "base/result.h"
#include "base/types.h"

namespace us::log {

constexpr uint32_t kHelloMagic = 0x48435355;  // "USCH"
constexpr uint16_t kProtocolVersion = 1;
constexpr size_t kMessageHeaderBytes = 12;
// Bodies, in bytes: a frame of the largest record; everything else is short.
constexpr size_t kFrameMessageMax = 18 * 1024 * 1024 + 64 * 1024;
constexpr size_t kControlMessageMax = 8 * 1024;
constexpr size_t kChannelTextMax = 1024;  // of each string in a message

using SessionId = std::array<uint8_t, 16>;

// Feature bits: those a side offers; used are those that both offer. None so far.
constexpr uint64_t kFeaturesKnown = 0;

enum class MessageType : uint16_t {
  kHello = 1,
  kWelcome = 2,
  kFrame = 3,
  kAck = 4,
  kHeartbeat = 5,
  kGoodbye = 6,
};

// Primary to secondary, first.
struct Hello {
  uint16_t version = kProtocolVersion;
  uint64_t features = kFeaturesKnown;
  std::string vm_name{};
  std::string node{};      // who speaks, as the arbiter knows it
  std::string contract{};  // what makes two backends run alike, e.g. "soft-1"
  std::array<uint8_t, 16> config_digest{};
  uint64_t generation = 0;
  SessionId session{};          // one per state transfer
  uint64_t first_sequence = 0;  // oldest frame that can still be sent again
  bool operator==(const Hello&) const = default;
};

enum class WelcomeVerdict : uint8_t {
  kFresh = 1,    // the session is new here: send from sequence 0
  kResume = 2,   // known: send from `next_sequence`
  kRefused = 3,  // `reason` says why; the connection ends
};
// Refusals with a meaning for programs; `text` is for people.
enum class RefuseReason : uint8_t {
  kNone = 0,
  kVersion = 1,
  kContract = 2,
  kOtherVm = 3,
  kConfig = 4,
  kOldGeneration = 5,  // this side has seen a later one: the primary must not go on
  kBusy = 6,           // another session is under way, or this side is live itself
  kGap = 7,            // the frame needed next is no longer there
};
// Secondary to primary, the answer.
struct Welcome {
  uint16_t version = kProtocolVersion;
  uint64_t features = kFeaturesKnown;
  std::string node{};
  WelcomeVerdict verdict = WelcomeVerdict::kFresh;
  RefuseReason reason = RefuseReason::kNone;
  uint64_t next_sequence = 0;
  uint64_t generation = 0;  // the latest this side has seen
  std::string text{};
  bool operator==(const Welcome&) const = default;
};

// Primary to secondary: one log frame (logchannel/frame.h), whole.
struct FrameMessage {
  Bytes frame{};
  bool operator==(const FrameMessage&) const = default;
};

// Secondary to primary: what it has and how far it is. Cumulative.
struct Ack {
  uint64_t next_sequence = 0;  // every frame before it is kept here
  LogPosition received{};      // log position after them
  LogPosition replayed{};      // its machine stands here
  bool ready = false;          // the state transfer is complete: this side could take over
  bool operator==(const Ack&) const = default;
};

// Both ways, on a timer, also when there is nothing else to say. Carries a round trip's measure:
// the receiver's clock comes back with how long it lay there.
struct Heartbeat {
  uint64_t sent_ns = 0;       // sender's monotonic clock
  uint64_t echo_ns = 0;       // `sent_ns` of the last heartbeat received; 0: none yet
  uint64_t echo_held_ns = 0;  // time between its arrival and this message
  LogPosition released{};     // primary only: outputs up to here are with the world
  bool operator==(const Heartbeat&) const = default;
};

enum class GoodbyeReason : uint8_t {
  kStopped = 1,   // operator's stop: nobody goes live
  kDisabled = 2,  // protection was turned off; the primary runs on
  kDiverged = 3,  // secondary: its execution is not the primary's any more
  kTakeOver = 4,  // primary has halted for good and asks the secondary to go live
  kFailed = 5,    // the sender cannot go on (`text`)
  kFenced = 6,    // the sender lost the arbiter
};
struct Goodbye {
  GoodbyeReason reason = GoodbyeReason::kStopped;
  std::string text{};
  bool operator==(const Goodbye&) const = default;
};

using Message = std::variant<Hello, Welcome, FrameMessage, Ack, Heartbeat, Goodbye>;

MessageType type_of(const Message& message);
// "hello", "ack", ... for messages and dumps.
const char* name_of(MessageType type);
const char* name_of(RefuseReason reason);
const char* name_of(GoodbyeReason reason);

// Appends the message's bytes. Precondition: strings at most kChannelTextMax, a frame at most
// kFrameMessageMax.
void encode(const Message& message, Bytes& out);
// The bytes before a frame of `frame_bytes`, so that a large frame need not be copied.
std::array<uint8_t, kMessageHeaderBytes> frame_message_header(size_t frame_bytes);

enum class MessageError : uint8_t {
  kNotOurs,  // the first bytes are no greeting: a port scanner, another protocol
  kUnknownType,
  kTooLong,  // its length is past the bound of its type
  kBadCrc,
  kMalformed,  // the body does not parse, or breaks a bound
  kOutOfTurn,  // another message than the greeting came first, or a second greeting
};
const char* describe(MessageError error);

// Fed bytes in any pieces; holds at most one message. After an error it stays in error. The first
// message must be a greeting (Hello or Welcome), and only the first.
class MessageReader {
 public:
  // Takes all or some of `bytes` and returns how many; call next() until it has nothing, then feed
  // the rest.
  size_t feed(ByteSpan bytes);
  Result<std::optional<Message>, MessageError> next();
  // Of a message begun but not whole.
  size_t partial_bytes() const;
  bool greeted() const { return greeted_; }

 private:
  void take_header(ByteSpan bytes, size_t& taken);
  std::optional<MessageError> check_header();
  std::optional<MessageError> check_greeting_start() const;
  Result<Message, MessageError> take_body();

  std::array<uint8_t, kMessageHeaderBytes> header_{};
  size_t header_bytes_ = 0;  // of it that came
  Bytes body_;               // as it comes: never as long as the header merely says
  uint32_t wanted_ = 0;      // the body's length
  MessageType type_{};
  bool greeted_ = false;
  std::optional<MessageError> error_;
};

}  // namespace us::log
