#include "logchannel/channel/message.h"

#include "base/check.h"
#include "base/crc32c.h"
#include "base/overloaded.h"
#include "logchannel/channel/message_body.h"

namespace us::log {
namespace {

using Header = std::array<uint8_t, kMessageHeaderBytes>;

// Offsets in the header; docs/channel-protocol.md has the same table.
constexpr size_t kAtLength = 0, kAtType = 4, kAtReserved = 6, kAtCrc = 8;

template <class T>
void store(uint8_t* at, T value) {
  std::memcpy(at, &value, sizeof value);
}

Header header_of(MessageType type, size_t body_bytes, uint32_t crc) {
  Header header{};
  store(header.data() + kAtLength, static_cast<uint32_t>(body_bytes));
  store(header.data() + kAtType, static_cast<uint16_t>(type));
  store(header.data() + kAtReserved, uint16_t{0});
  store(header.data() + kAtCrc, crc);
  return header;
}

void put_text(ByteWriter& out, const std::string& text) {
  US_CHECK(text.size() <= kChannelTextMax, "a text of {} bytes in a message", text.size());
  out.put_string(text);
}

void put_body(ByteWriter& out, const Hello& hello) {
  out.put(kHelloMagic);
  out.put(hello.version);
  out.put(hello.features);
  put_text(out, hello.vm_name);
  put_text(out, hello.node);
  put_text(out, hello.contract);
  out.put_bytes(hello.config_digest);
  out.put(hello.generation);
  out.put_bytes(hello.session);
  out.put(hello.first_sequence);
}

void put_body(ByteWriter& out, const Welcome& welcome) {
  out.put(kHelloMagic);
  out.put(welcome.version);
  out.put(welcome.features);
  put_text(out, welcome.node);
  out.put(welcome.verdict);
  out.put(welcome.reason);
  out.put(welcome.next_sequence);
  out.put(welcome.generation);
  put_text(out, welcome.text);
}

void put_body(ByteWriter& out, const Ack& ack) {
  out.put(ack.next_sequence);
  out.put(ack.received.value);
  out.put(ack.replayed.value);
  out.put<uint8_t>(ack.ready ? 1 : 0);
}

void put_body(ByteWriter& out, const Heartbeat& heartbeat) {
  out.put(heartbeat.sent_ns);
  out.put(heartbeat.echo_ns);
  out.put(heartbeat.echo_held_ns);
  out.put(heartbeat.released.value);
}

void put_body(ByteWriter& out, const Goodbye& goodbye) {
  out.put(goodbye.reason);
  put_text(out, goodbye.text);
}

}  // namespace

uint32_t message_crc(MessageType type, ByteSpan body) {
  const auto code = static_cast<uint16_t>(type);
  std::array<uint8_t, sizeof code> bytes{};
  store(bytes.data(), code);
  return crc32c(body, crc32c(bytes));
}

size_t body_bytes_max(MessageType type) {
  return type == MessageType::kFrame ? kFrameMessageMax : kControlMessageMax;
}

MessageType type_of(const Message& message) {
  return std::visit(Overloaded{
                        [](const Hello&) { return MessageType::kHello; },
                        [](const Welcome&) { return MessageType::kWelcome; },
                        [](const FrameMessage&) { return MessageType::kFrame; },
                        [](const Ack&) { return MessageType::kAck; },
                        [](const Heartbeat&) { return MessageType::kHeartbeat; },
                        [](const Goodbye&) { return MessageType::kGoodbye; },
                    },
                    message);
}

void encode(const Message& message, Bytes& out) {
  if (const auto* frame = std::get_if<FrameMessage>(&message)) {
    const Header header = frame_message_header(frame->frame.size());
    out.insert(out.end(), header.begin(), header.end());
    out.insert(out.end(), frame->frame.begin(), frame->frame.end());
    return;
  }
  ByteWriter body;
  std::visit(Overloaded{
                 [](const FrameMessage&) {},
                 [&](const auto& other) { put_body(body, other); },
             },
             message);
  US_CHECK(body.size() <= kControlMessageMax, "a message of {} bytes", body.size());
  const MessageType type = type_of(message);
  const Header header = header_of(type, body.size(), message_crc(type, body.bytes()));
  out.insert(out.end(), header.begin(), header.end());
  out.insert(out.end(), body.bytes().begin(), body.bytes().end());
}

Header frame_message_header(size_t frame_bytes) {
  US_CHECK(frame_bytes <= kFrameMessageMax, "a frame of {} bytes", frame_bytes);
  return header_of(MessageType::kFrame, frame_bytes, 0);
}

const char* name_of(MessageType type) {
  switch (type) {
    case MessageType::kHello: return "hello";
    case MessageType::kWelcome: return "welcome";
    case MessageType::kFrame: return "frame";
    case MessageType::kAck: return "ack";
    case MessageType::kHeartbeat: return "heartbeat";
    case MessageType::kGoodbye: return "goodbye";
  }
  return "?";
}

const char* name_of(RefuseReason reason) {
  switch (reason) {
    case RefuseReason::kNone: return "none";
    case RefuseReason::kVersion: return "version";
    case RefuseReason::kContract: return "contract";
    case RefuseReason::kOtherVm: return "other-vm";
    case RefuseReason::kConfig: return "config";
    case RefuseReason::kOldGeneration: return "old-generation";
    case RefuseReason::kBusy: return "busy";
    case RefuseReason::kGap: return "gap";
  }
  return "?";
}

const char* name_of(GoodbyeReason reason) {
  switch (reason) {
    case GoodbyeReason::kStopped: return "stopped";
    case GoodbyeReason::kDisabled: return "disabled";
    case GoodbyeReason::kDiverged: return "diverged";
    case GoodbyeReason::kTakeOver: return "take-over";
    case GoodbyeReason::kFailed: return "failed";
    case GoodbyeReason::kFenced: return "fenced";
  }
  return "?";
}

const char* describe(MessageError error) {
  switch (error) {
    case MessageError::kNotOurs: return "the first bytes are no greeting of this protocol";
    case MessageError::kUnknownType: return "a message of a type that is unknown";
    case MessageError::kTooLong: return "a message that is longer than its type may be";
    case MessageError::kBadCrc: return "a message whose checksum does not match";
    case MessageError::kMalformed: return "a message that does not parse";
    case MessageError::kOutOfTurn: return "a message before the greeting, or a second greeting";
  }
  return "?";
}

}  // namespace us::log
