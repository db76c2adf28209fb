#include "logchannel/channel/message.h"

#include <doctest/doctest.h>
#include <random>
#include <vector>

#include "base/crc32c.h"
#include "pair.h"

namespace us::log {
namespace {

std::vector<Message> samples_after_greeting() {
  Ack ack;
  ack.next_sequence = 0x0102030405060708;
  ack.received = LogPosition(1000);
  ack.replayed = LogPosition(900);
  ack.ready = true;
  Heartbeat heartbeat;
  heartbeat.sent_ns = 11;
  heartbeat.echo_ns = 12;
  heartbeat.echo_held_ns = 13;
  heartbeat.released = LogPosition(14);
  Goodbye goodbye;
  goodbye.reason = GoodbyeReason::kDiverged;
  goodbye.text = "registers differ";
  return {ack, heartbeat, goodbye, FrameMessage{Bytes(300, 0xab)}, FrameMessage{}};
}

std::vector<Message> samples() {
  std::vector<Message> all = samples_after_greeting();
  all.push_back(sample_hello());
  all.push_back(sample_welcome());
  return all;
}

bool is_greeting(const Message& message) {
  return type_of(message) == MessageType::kHello || type_of(message) == MessageType::kWelcome;
}

struct Outcome {
  std::vector<Message> messages;
  std::optional<MessageError> error;
  size_t partial = 0;
};

// Feeds in pieces of `piece` bytes; after a greeting, when asked.
Outcome read(ByteSpan bytes, size_t piece, bool greeted) {
  MessageReader reader;
  Outcome out;
  if (greeted) {
    const Bytes greeting = encoded(sample_hello());
    REQUIRE(reader.feed(greeting) == greeting.size());
    REQUIRE(reader.next().ok());
  }
  while (!bytes.empty() && !out.error) {
    const size_t taken = reader.feed(bytes.subspan(0, std::min(piece, bytes.size())));
    bytes = bytes.subspan(taken);
    auto message = reader.next();
    if (!message) {
      out.error = message.error();
    } else if (message->has_value()) {
      out.messages.push_back(std::move(**message));
    }
  }
  out.partial = reader.partial_bytes();
  return out;
}

// As they are when they come as they should.
Outcome read(const Bytes& bytes, const Message& meant) {
  return read(bytes, bytes.size(), !is_greeting(meant));
}

// A message with any header.
Bytes raw(uint32_t length, uint16_t type, uint16_t reserved, uint32_t crc, ByteSpan body = {}) {
  ByteWriter out;
  out.put(length);
  out.put(type);
  out.put(reserved);
  out.put(crc);
  out.put_bytes(body);
  return out.take();
}

std::optional<MessageError> error_of(const Bytes& bytes, bool greeted) {
  return read(bytes, bytes.size(), greeted).error;
}

}  // namespace

TEST_CASE("every message comes back as it was, in pieces of any size") {
  Bytes stream = encoded(sample_hello());
  std::vector<Message> sent{sample_hello()};
  for (const Message& message : samples_after_greeting()) {
    encode(message, stream);
    sent.push_back(message);
  }
  for (const size_t piece : {1, 2, 3, 7, 11, 12, 13, 64, 300, 100'000}) {
    CAPTURE(piece);
    const Outcome out = read(stream, piece, false);
    CHECK_FALSE(out.error.has_value());
    CHECK(out.messages == sent);
    CHECK(out.partial == 0);
  }
  const Outcome welcome = read(encoded(sample_welcome()), 5, false);
  CHECK(welcome.messages == std::vector<Message>{sample_welcome()});
}

TEST_CASE("an ack and a hello have the bytes that the protocol page says") {
  Ack ack;
  ack.next_sequence = 1;
  ack.received = LogPosition(2);
  ack.replayed = LogPosition(3);
  ack.ready = true;
  const Bytes bytes = encoded(ack);
  const Bytes start = {25, 0, 0, 0, 4, 0, 0, 0};
  REQUIRE(bytes.size() == 12 + 25);
  CHECK(Bytes(bytes.begin(), bytes.begin() + 8) == start);
  const Bytes body = {1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1};
  CHECK(Bytes(bytes.begin() + 12, bytes.end()) == body);

  const Bytes hello = encoded(sample_hello());
  const Bytes greeting = {'U', 'S', 'C', 'H', 1, 0};  // magic, version
  CHECK(Bytes(hello.begin() + 12, hello.begin() + 18) == greeting);
  CHECK(hello[4] == 1);
  CHECK(encoded(sample_welcome())[4] == 2);
}

TEST_CASE("a frame's header and its bytes make the same as the frame message") {
  const Bytes frame(1000, 0x77);
  const auto header = frame_message_header(frame.size());
  ByteWriter pieces;
  pieces.put_bytes(header);
  pieces.put_bytes(frame);
  CHECK(pieces.bytes() == encoded(FrameMessage{frame}));
}

TEST_CASE("a message cut anywhere is not there yet, and nothing is wrong with it") {
  for (const Message& message : samples()) {
    const Bytes whole = encoded(message);
    for (size_t size = 1; size < whole.size(); ++size) {
      const Outcome out = read(Bytes(whole.begin(), whole.begin() + size), message);
      CHECK_FALSE(out.error.has_value());
      CHECK(out.messages.empty());
      CHECK(out.partial == size);
    }
  }
}

TEST_CASE(
    "a message with one bit flipped never comes out as another; only frames are not checked") {
  for (const Message& message : samples()) {
    const Bytes whole = encoded(message);
    const bool frame = type_of(message) == MessageType::kFrame;
    for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
      Bytes flipped = whole;
      flipped[bit / 8] ^= 1 << (bit % 8);
      const Outcome out = read(flipped, message);
      CAPTURE(bit);
      if (!frame) {
        CHECK(out.messages.empty());
        continue;
      }
      // A frame has checksums of its own; what comes is a frame all the same.
      for (const Message& other : out.messages) CHECK(type_of(other) == MessageType::kFrame);
      if (bit >= 12 * 8) CHECK(out.messages.size() == 1);
    }
  }
}

TEST_CASE("greetings of a later version may be longer; other messages may not") {
  auto grown = [](const Message& message) {
    // The body with four more bytes, its length and checksum made right.
    const Bytes whole = encoded(message);
    Bytes body(whole.begin() + 12, whole.end());
    body.insert(body.end(), {1, 2, 3, 4});
    const auto type = static_cast<uint16_t>(type_of(message));
    ByteWriter code;
    code.put(type);
    const uint32_t crc = crc32c(body, crc32c(code.bytes()));
    return raw(static_cast<uint32_t>(body.size()), type, 0, crc, body);
  };
  for (const Message& message : samples()) {
    if (type_of(message) == MessageType::kFrame) continue;
    const Outcome out = read(grown(message), message);
    if (is_greeting(message)) {
      CHECK(out.messages == std::vector<Message>{message});
    } else {
      CHECK(out.error == MessageError::kMalformed);
    }
  }
}

TEST_CASE("a reason to refuse that only later versions know reads as none, with its text") {
  Welcome welcome = sample_welcome();
  welcome.reason = static_cast<RefuseReason>(200);
  const Outcome out = read(encoded(welcome), 100'000, false);
  welcome.reason = RefuseReason::kNone;
  CHECK(out.messages == std::vector<Message>{welcome});
}

TEST_CASE("values outside their enumerations are malformed") {
  Welcome welcome = sample_welcome();
  welcome.verdict = static_cast<WelcomeVerdict>(4);
  CHECK(error_of(encoded(welcome), false) == MessageError::kMalformed);
  welcome.verdict = static_cast<WelcomeVerdict>(0);
  CHECK(error_of(encoded(welcome), false) == MessageError::kMalformed);
  Goodbye goodbye;
  goodbye.reason = static_cast<GoodbyeReason>(7);
  CHECK(error_of(encoded(goodbye), true) == MessageError::kMalformed);
}

TEST_CASE("lengths past a type's bound are refused from the header alone") {
  const auto frame = static_cast<uint16_t>(MessageType::kFrame);
  const auto ack = static_cast<uint16_t>(MessageType::kAck);
  const auto hello = static_cast<uint16_t>(MessageType::kHello);
  CHECK(error_of(raw(kFrameMessageMax + 1, frame, 0, 0), true) == MessageError::kTooLong);
  CHECK_FALSE(error_of(raw(kFrameMessageMax, frame, 0, 0), true).has_value());
  CHECK(error_of(raw(kControlMessageMax + 1, ack, 0, 0), true) == MessageError::kTooLong);
  CHECK(error_of(raw(0xffffffff, frame, 0, 0), true) == MessageError::kTooLong);
  CHECK(error_of(raw(kControlMessageMax + 1, hello, 0, 0), false) == MessageError::kNotOurs);
}

TEST_CASE("a text longer than its bound is malformed") {
  Goodbye goodbye;
  goodbye.text = std::string(kChannelTextMax, 'x');
  Bytes bytes = encoded(goodbye);
  CHECK(read(bytes, goodbye).messages == std::vector<Message>{goodbye});
  // One byte more, with everything else right.
  ByteWriter body;
  body.put(goodbye.reason);
  body.put_string(goodbye.text + "x");
  ByteWriter code;
  code.put<uint16_t>(6);
  const uint32_t crc = crc32c(body.bytes(), crc32c(code.bytes()));
  bytes = raw(static_cast<uint32_t>(body.size()), 6, 0, crc, body.bytes());
  CHECK(error_of(bytes, true) == MessageError::kMalformed);
}

TEST_CASE("unknown types, reserved bits and checksums of frames are refused") {
  CHECK(error_of(raw(0, 7, 0, 0), true) == MessageError::kUnknownType);
  CHECK(error_of(raw(0, 0, 0, 0), true) == MessageError::kUnknownType);
  CHECK(error_of(raw(10, 3, 1, 0), true) == MessageError::kMalformed);
  CHECK(error_of(raw(10, 3, 0, 1), true) == MessageError::kMalformed);
}

TEST_CASE("strangers are known by their first bytes") {
  for (const std::string& text :
       {std::string("GET / HTTP/1.1\r\n"), std::string("GET "),
        std::string("SSH-2.0-OpenSSH_9.2\r\n"),
        std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00", 12), std::string(12, '\0'),
        std::string(12, '\xff')}) {
    CAPTURE(text);
    CHECK(error_of(Bytes(text.begin(), text.end()), false) == MessageError::kNotOurs);
  }
  Bytes other_magic = encoded(sample_hello());
  other_magic[12] ^= 1;
  CHECK(error_of(Bytes(other_magic.begin(), other_magic.begin() + 16), false) ==
        MessageError::kNotOurs);
}

TEST_CASE("what is no greeting at first, and a greeting later, is out of turn") {
  for (const Message& message : samples()) {
    const bool greeting = is_greeting(message);
    CHECK(error_of(encoded(message), greeting) == MessageError::kOutOfTurn);
  }
}

TEST_CASE("after an error a reader takes nothing and stays in error") {
  MessageReader reader;
  const Bytes garbage(64, 0xee);
  reader.feed(garbage);
  CHECK_FALSE(reader.next().ok());
  const Bytes hello = encoded(sample_hello());
  CHECK(reader.feed(hello) == 0);
  const auto next = reader.next();
  REQUIRE_FALSE(next.ok());
  CHECK(next.error() == MessageError::kNotOurs);
}

TEST_CASE("random bytes after a greeting end in an error or wait for more") {
  constexpr uint32_t kSeed = 20'241;
  MESSAGE("seed ", kSeed);
  std::mt19937 random(kSeed);
  for (int round = 0; round < 20'000; ++round) {
    Bytes bytes(random() % 64 + 12);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    // Lengths and types that pass, now and then.
    if (random() % 2 == 0) bytes[1] = bytes[2] = bytes[3] = bytes[5] = bytes[6] = bytes[7] = 0;
    const Outcome out = read(bytes, bytes.size(), true);
    for (const Message& message : out.messages) {
      CHECK(type_of(message) == MessageType::kFrame);
    }
    CHECK(out.partial <= bytes.size());
  }
}

}  // namespace us::log
