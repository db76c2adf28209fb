// Arbitrary bytes as the messages of a peer, in one piece and in many: both must read the same, and
// what is read must encode and read again as itself. The first byte chooses the pieces. A second
// round has its checksums made right (a fuzzer does not find them), so that bodies are reached.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "logchannel/channel/message.h"
#include "logchannel/channel/message_body.h"

namespace us::log {
namespace {

struct Outcome {
  std::vector<Message> messages{};
  std::optional<MessageError> error{};
  size_t partial = 0;
  bool operator==(const Outcome&) const = default;
};

Outcome read(ByteSpan bytes, size_t piece) {
  MessageReader reader;
  Outcome out;
  while (!out.error) {
    const size_t taken = reader.feed(bytes.subspan(0, std::min(piece, bytes.size())));
    bytes = bytes.subspan(taken);
    auto message = reader.next();
    if (!message) {
      out.error = message.error();
    } else if (message->has_value()) {
      out.messages.push_back(std::move(**message));
    } else if (bytes.empty()) {
      break;
    } else {
      US_CHECK(taken != 0, "a reader that neither takes nor gives");
    }
  }
  // How many bytes of a bad message were taken depends on the pieces.
  if (!out.error) out.partial = reader.partial_bytes();
  return out;
}

void check(const Bytes& bytes, size_t piece) {
  const Outcome whole = read(bytes, std::max<size_t>(bytes.size(), 1));
  US_CHECK(whole == read(bytes, piece), "the pieces make a difference");
  Bytes again;
  for (const Message& message : whole.messages) encode(message, again);
  const Outcome second = read(again, piece);
  US_CHECK(second.messages == whole.messages && !second.error && second.partial == 0);
}

void make_checksums_right(Bytes& bytes) {
  for (size_t at = 0; at + kMessageHeaderBytes <= bytes.size();) {
    uint8_t* header = bytes.data() + at;
    uint32_t length;
    uint16_t type;
    std::memcpy(&length, header, 4);
    std::memcpy(&type, header + 4, 2);
    const size_t body = std::min<size_t>(length, bytes.size() - at - kMessageHeaderBytes);
    const auto named = static_cast<MessageType>(type);
    const uint32_t crc =
        named == MessageType::kFrame ? 0 : message_crc(named, {header + kMessageHeaderBytes, body});
    std::memcpy(header + 8, &crc, 4);
    at += kMessageHeaderBytes + body;
  }
}

}  // namespace
}  // namespace us::log

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t piece = data[0] % 64 + 1;
  us::Bytes bytes(data + 1, data + size);
  us::log::check(bytes, piece);
  us::log::make_checksums_right(bytes);
  us::log::check(bytes, piece);
  return 0;
}
