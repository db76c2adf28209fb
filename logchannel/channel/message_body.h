// Inside of the message codec: what encoder and parser share.
#pragma once

#include <optional>

#include "logchannel/channel/message.h"

namespace us::log {

// CRC-32C of the type's two bytes and the body. Not for frames.
uint32_t message_crc(MessageType type, ByteSpan body);
// The longest body of a message of that type. Precondition: a known type.
size_t body_bytes_max(MessageType type);
// Nothing when the body does not parse or breaks a bound. Not for frames.
std::optional<Message> parse_body(MessageType type, ByteSpan body);

}  // namespace us::log
