// Arbitrary bytes as the first words of whoever connects to us, or whom we connected to: through
// TLS in both roles and without it, as a link reads them, but without sockets; and the words that
// an operator is told. The first byte chooses the pieces.
#include <algorithm>
#include <cstdint>
#include <memory>

#include "base/check.h"
#include "logchannel/channel/link_end.h"
#include "logchannel/channel/tls.h"

namespace us::log {
namespace {

// What a handshake may make us say: far more than any of ours takes.
constexpr size_t kSaidMax = 64 * 1024;

void check_words(const LinkEnd& end) {
  US_CHECK(end.kind == LinkEnd::Kind::kBadPeer);
  US_CHECK(end.error.id.starts_with("CHAN-0") && !end.error.seen.empty());
  US_CHECK(end.error.text().size() < 1000);
}

ByteSpan first_of(ByteSpan bytes) { return bytes.subspan(0, std::min(bytes.size(), kSpeechBytes)); }

void without_tls(ByteSpan bytes, size_t piece) {
  MessageReader reader;
  for (ByteSpan left = bytes;;) {
    left = left.subspan(reader.feed(left.subspan(0, std::min(piece, left.size()))));
    const auto message = reader.next();
    if (!message) {
      check_words(
          ended_by_message("peer", CredentialKind::kPlaintext, message.error(), first_of(bytes)));
      return;
    }
    US_CHECK(reader.greeted() ||
             reader.partial_bytes() <= kMessageHeaderBytes + kControlMessageMax);
    if (!message->has_value() && left.empty()) return;
  }
}

void with_tls(ByteSpan bytes, size_t piece, Tls::Side side) {
  static const auto context = [] {
    Credentials credentials;
    credentials.key = Bytes(32, 7);
    return *TlsContext::make(credentials);
  }();
  Bytes said;
  Tls tls(context, side, said);
  for (ByteSpan left = bytes;;) {
    const ByteSpan next = left.subspan(0, std::min(piece, left.size()));
    left = left.subspan(next.size());
    tls.set_input(next);
    const Tls::Step step = tls.handshake();
    US_CHECK(said.size() <= kSaidMax);
    US_CHECK(step != Tls::Step::kDone, "a peer without the key got in");
    if (step != Tls::Step::kWantsInput) {
      check_words(ended_by_tls("peer", tls.failure(), first_of(bytes)));
      return;
    }
    US_CHECK(tls.unread() == 0);
    if (left.empty()) return;
  }
}

}  // namespace
}  // namespace us::log

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t piece = data[0] == 0 ? size : data[0];
  const us::ByteSpan bytes(data + 1, size - 1);
  us::log::without_tls(bytes, piece);
  us::log::with_tls(bytes, piece, us::log::Tls::Side::kServer);
  us::log::with_tls(bytes, piece, us::log::Tls::Side::kClient);
  return 0;
}
