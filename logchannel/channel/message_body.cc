#include "logchannel/channel/message_body.h"

namespace us::log {
namespace {

std::string get_text(ByteReader& in) {
  std::string text = in.get_string();
  if (text.size() > kChannelTextMax) in.fail();
  return text;
}

// An enumerator between two others, both included.
template <class E>
E get_enum(ByteReader& in, E first, E last) {
  const auto value = in.get<std::underlying_type_t<E>>();
  const bool known = value >= static_cast<std::underlying_type_t<E>>(first) &&
                     value <= static_cast<std::underlying_type_t<E>>(last);
  if (!known) in.fail();
  return known ? static_cast<E>(value) : first;
}

Hello get_hello(ByteReader& in) {
  Hello hello;
  if (in.get<uint32_t>() != kHelloMagic) in.fail();
  hello.version = in.get<uint16_t>();
  hello.features = in.get<uint64_t>();
  hello.vm_name = get_text(in);
  hello.node = get_text(in);
  hello.contract = get_text(in);
  in.get_into(hello.config_digest);
  hello.generation = in.get<uint64_t>();
  in.get_into(hello.session);
  hello.first_sequence = in.get<uint64_t>();
  return hello;
}

Welcome get_welcome(ByteReader& in) {
  Welcome welcome;
  if (in.get<uint32_t>() != kHelloMagic) in.fail();
  welcome.version = in.get<uint16_t>();
  welcome.features = in.get<uint64_t>();
  welcome.node = get_text(in);
  welcome.verdict = get_enum(in, WelcomeVerdict::kFresh, WelcomeVerdict::kRefused);
  // A later version may know other reasons; its text says them.
  const auto reason = in.get<uint8_t>();
  if (reason <= static_cast<uint8_t>(RefuseReason::kGap)) {
    welcome.reason = static_cast<RefuseReason>(reason);
  }
  welcome.next_sequence = in.get<uint64_t>();
  welcome.generation = in.get<uint64_t>();
  welcome.text = get_text(in);
  return welcome;
}

Ack get_ack(ByteReader& in) {
  Ack ack;
  ack.next_sequence = in.get<uint64_t>();
  ack.received = LogPosition(in.get<uint64_t>());
  ack.replayed = LogPosition(in.get<uint64_t>());
  const auto ready = in.get<uint8_t>();
  if (ready > 1) in.fail();
  ack.ready = ready == 1;
  return ack;
}

Heartbeat get_heartbeat(ByteReader& in) {
  Heartbeat heartbeat;
  heartbeat.sent_ns = in.get<uint64_t>();
  heartbeat.echo_ns = in.get<uint64_t>();
  heartbeat.echo_held_ns = in.get<uint64_t>();
  heartbeat.released = LogPosition(in.get<uint64_t>());
  return heartbeat;
}

Goodbye get_goodbye(ByteReader& in) {
  Goodbye goodbye;
  goodbye.reason = get_enum(in, GoodbyeReason::kStopped, GoodbyeReason::kFenced);
  goodbye.text = get_text(in);
  return goodbye;
}

Message get_message(MessageType type, ByteReader& in) {
  switch (type) {
    case MessageType::kHello: return get_hello(in);
    case MessageType::kWelcome: return get_welcome(in);
    case MessageType::kAck: return get_ack(in);
    case MessageType::kHeartbeat: return get_heartbeat(in);
    case MessageType::kGoodbye: return get_goodbye(in);
    case MessageType::kFrame: break;
  }
  in.fail();
  return Ack{};
}

}  // namespace

std::optional<Message> parse_body(MessageType type, ByteSpan body) {
  ByteReader in(body);
  Message message = get_message(type, in);
  const bool may_grow = type == MessageType::kHello || type == MessageType::kWelcome;
  if (in.failed() || (!in.at_end() && !may_grow)) return std::nullopt;
  return message;
}

}  // namespace us::log
