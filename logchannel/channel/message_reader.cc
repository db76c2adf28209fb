#include <algorithm>

#include "logchannel/channel/message.h"
#include "logchannel/channel/message_body.h"

namespace us::log {
namespace {

constexpr size_t kMagicBytes = sizeof kHelloMagic;
// A body's buffer to begin with; longer bodies double it as their bytes come.
constexpr size_t kBodyReserve = 512 * 1024;

bool is_greeting(MessageType type) {
  return type == MessageType::kHello || type == MessageType::kWelcome;
}

bool is_known(uint16_t type) {
  return type >= static_cast<uint16_t>(MessageType::kHello) &&
         type <= static_cast<uint16_t>(MessageType::kGoodbye);
}

}  // namespace

size_t MessageReader::partial_bytes() const { return header_bytes_ + body_.size(); }

size_t MessageReader::feed(ByteSpan bytes) {
  size_t taken = 0;
  if (error_) return 0;
  if (header_bytes_ < header_.size()) take_header(bytes, taken);
  if (error_ || header_bytes_ < header_.size()) return taken;
  const size_t n = std::min<size_t>(wanted_ - body_.size(), bytes.size() - taken);
  if (n == 0) return taken;
  if (body_.empty()) body_.reserve(std::min<size_t>(wanted_, kBodyReserve));
  body_.insert(body_.end(), bytes.begin() + taken, bytes.begin() + taken + n);
  if (!greeted_) error_ = check_greeting_start();
  return taken + n;
}

void MessageReader::take_header(ByteSpan bytes, size_t& taken) {
  taken = std::min(header_.size() - header_bytes_, bytes.size());
  std::copy_n(bytes.begin(), taken, header_.begin() + header_bytes_);
  header_bytes_ += taken;
  if (header_bytes_ == header_.size()) {
    error_ = check_header();
  } else if (!greeted_ && header_bytes_ >= sizeof wanted_) {
    // Strangers often say less than a header and wait.
    ByteReader in(header_);
    if (in.get<uint32_t>() > kFrameMessageMax) error_ = MessageError::kNotOurs;
  }
}

std::optional<MessageError> MessageReader::check_header() {
  ByteReader in(header_);
  wanted_ = in.get<uint32_t>();
  const auto type = in.get<uint16_t>();
  const auto reserved = in.get<uint16_t>();
  const auto crc = in.get<uint32_t>();
  const bool known = is_known(type);
  if (known) type_ = static_cast<MessageType>(type);
  const bool fits = known && wanted_ <= body_bytes_max(type_);
  // Of a stranger's bytes nothing is worth telling apart.
  if (!greeted_ && (!fits || reserved != 0)) return MessageError::kNotOurs;
  if (!known) return MessageError::kUnknownType;
  if (!fits) return MessageError::kTooLong;
  if (reserved != 0) return MessageError::kMalformed;
  if (is_greeting(type_) == greeted_) return MessageError::kOutOfTurn;
  if (type_ == MessageType::kFrame && crc != 0) return MessageError::kMalformed;
  return std::nullopt;
}

std::optional<MessageError> MessageReader::check_greeting_start() const {
  if (body_.size() < kMagicBytes) return std::nullopt;
  ByteReader in(body_);
  if (in.get<uint32_t>() != kHelloMagic) return MessageError::kNotOurs;
  return std::nullopt;
}

Result<std::optional<Message>, MessageError> MessageReader::next() {
  if (error_) return *error_;
  if (header_bytes_ < header_.size() || body_.size() < wanted_) return std::optional<Message>();
  auto message = take_body();
  if (!message) {
    error_ = message.error();
    return *error_;
  }
  header_bytes_ = 0;
  body_.clear();
  greeted_ = true;
  return std::optional<Message>(std::move(*message));
}

Result<Message, MessageError> MessageReader::take_body() {
  if (type_ == MessageType::kFrame) return Message(FrameMessage{std::exchange(body_, Bytes())});
  ByteReader in(header_);
  in.get_span(header_.size() - sizeof(uint32_t));
  if (in.get<uint32_t>() != message_crc(type_, body_)) return MessageError::kBadCrc;
  auto message = parse_body(type_, body_);
  if (!message) return MessageError::kMalformed;
  return std::move(*message);
}

}  // namespace us::log
