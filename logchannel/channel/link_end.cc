#include "logchannel/channel/link_end.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

namespace us::log {
namespace {

using Kind = LinkEnd::Kind;

LinkEnd make(Kind kind, const char* id, std::string what, std::string seen, std::string needed,
             std::string mend) {
  return {kind, UserError{id, ExitCode::kPeerLost, std::move(what), std::move(seen),
                          std::move(needed), std::move(mend)}};
}

std::string connection(const std::string& peer, const char* fate) {
  return fmt::format("the log channel's connection with {} {}", peer, fate);
}

LinkEnd not_both_tls(const std::string& peer, const std::string& seen) {
  return make(Kind::kBadPeer, "CHAN-010", connection(peer, "was given up"), seen,
              "TLS on both sides, or on neither",
              "give both sides the same --credentials (plaintext only where nobody else can reach "
              "the network)");
}

LinkEnd other_protocol(const std::string& peer, const std::string& seen) {
  return make(Kind::kBadPeer, "CHAN-011", connection(peer, "was refused"), seen,
              "the log channel of understudy",
              "check the port; keep port scanners and monitors away from it");
}

bool starts_with(ByteSpan bytes, std::string_view text) {
  return bytes.size() >= text.size() && std::equal(text.begin(), text.end(), bytes.begin());
}

bool is_http(ByteSpan bytes) {
  for (const char* method : {"GET ", "POST", "HEAD", "PUT ", "OPTI", "CONN", "HTTP", "PRI "}) {
    if (starts_with(bytes, method)) return true;
  }
  return false;
}

const char* strange_speech(Speech speech) {
  switch (speech) {
    case Speech::kHttp: return "the peer speaks HTTP";
    case Speech::kSsh: return "the peer speaks SSH";
    default: return nullptr;
  }
}

}  // namespace

Speech speech_of(ByteSpan bytes) {
  if (bytes.empty()) return Speech::kNothing;
  // A TLS record: handshake (22) or alert (21), version 3.x (RFC 8446 5.1).
  const bool tls = bytes[0] == 22 || bytes[0] == 21;
  if (tls && bytes.size() >= 3 && bytes[1] == 3 && bytes[2] <= 4) return Speech::kTls;
  if (bytes.size() >= kSpeechBytes) {
    uint32_t magic;
    std::memcpy(&magic, bytes.data() + kMessageHeaderBytes, sizeof magic);
    if (magic == kHelloMagic) return Speech::kPlain;
  }
  if (is_http(bytes)) return Speech::kHttp;
  if (starts_with(bytes, "SSH-")) return Speech::kSsh;
  return Speech::kUnknown;
}

LinkEnd ended_here() { return {}; }

LinkEnd ended_by_peer(const std::string& peer, const std::string& seen) {
  return make(Kind::kClosedByPeer, "CHAN-013", connection(peer, "was closed by the peer"), seen,
              "a peer that goes on", "see the peer's own messages");
}

LinkEnd ended_by_network(const std::string& peer, int error) {
  const bool reset = error == ECONNRESET || error == EPIPE;
  if (reset) return ended_by_peer(peer, std::strerror(error));
  return make(Kind::kBroken, "CHAN-014", connection(peer, "broke"), std::strerror(error),
              "a network between the two", "check the network and the peer's host");
}

LinkEnd ended_unconnected(const std::string& peer, bool refused, const std::string& seen) {
  return make(refused ? Kind::kRefused : Kind::kBroken, "CHAN-005",
              fmt::format("cannot connect to {}", peer), seen, "a standby that listens there",
              "start it with `understudy standby --listen`, or correct the address");
}

LinkEnd ended_out_of_time(const std::string& peer, const std::string& what,
                          std::chrono::milliseconds limit) {
  return make(Kind::kTimedOut, "CHAN-007", connection(peer, "took too long"),
              fmt::format("no {} within {} ms", what, limit.count()), "a peer that answers",
              "check that the peer is an understudy, alive and not overloaded");
}

LinkEnd ended_by_tls(const std::string& peer, const TlsFailure& failure, ByteSpan first_bytes) {
  using Failure = TlsFailure::Kind;
  const Speech speech = speech_of(first_bytes);
  if (speech == Speech::kPlain) {
    return not_both_tls(peer, "the peer uses no TLS, this side does");
  }
  if (failure.kind == Failure::kNoTlsThere) {
    return not_both_tls(peer, "the peer says that it speaks no TLS 1.3, this side does");
  }
  if (failure.kind == Failure::kNotTls || (speech != Speech::kTls && speech != Speech::kNothing)) {
    const char* known = strange_speech(speech);
    return other_protocol(peer, known ? known : fmt::format("no TLS ({})", failure.seen));
  }
  switch (failure.kind) {
    case Failure::kWrongKey:
      return make(Kind::kBadPeer, "CHAN-008", connection(peer, "was refused"),
                  fmt::format("the peer's key is another one ({})", failure.seen),
                  "the same pre-shared key on both sides", "copy the key file to the other host");
    case Failure::kCertificate:
      return make(Kind::kBadPeer, "CHAN-009", connection(peer, "was refused"), failure.seen,
                  "on each side a valid certificate that the other side's ca.pem vouches for",
                  "check both --credentials; the dates and issuers: openssl verify -CAfile ca.pem "
                  "cert.pem");
    case Failure::kOtherKind:
      return make(Kind::kBadPeer, "CHAN-016", connection(peer, "was refused"), failure.seen,
                  "TLS 1.3 with credentials of the same kind on both sides",
                  "give both sides psk:FILE, or both cert:DIRECTORY");
    default: break;
  }
  return make(Kind::kBadPeer, "CHAN-012", connection(peer, "was given up"),
              fmt::format("TLS failed: {}", failure.seen), "intact bytes of the peer",
              "find out what between the two changes them");
}

LinkEnd ended_in_handshake(const std::string& peer, const std::string& seen) {
  return make(Kind::kClosedByPeer, "CHAN-013", connection(peer, "was closed by the peer"),
              fmt::format("{} before the two had agreed", seen),
              "a peer with the same kind of credentials and a free place",
              "see the peer's own messages");
}

LinkEnd ended_by_message(const std::string& peer, CredentialKind kind, MessageError error,
                         ByteSpan first_bytes) {
  const bool plaintext = kind == CredentialKind::kPlaintext;
  if (error == MessageError::kNotOurs) {
    const Speech speech = plaintext ? speech_of(first_bytes) : Speech::kUnknown;
    if (speech == Speech::kTls) return not_both_tls(peer, "the peer uses TLS, this side does not");
    const char* known = strange_speech(speech);
    return other_protocol(peer, known ? known : describe(error));
  }
  return make(Kind::kBadPeer, "CHAN-012", connection(peer, "was given up"), describe(error),
              "messages as understudy-channel(5) says",
              plaintext ? "find out who forges or damages them; use TLS"
                        : "the same release on both sides; report it if it is");
}

LinkEnd ended_by_owner(const std::string& peer, MessageType type) {
  return make(Kind::kBadPeer, "CHAN-012", connection(peer, "was given up"),
              fmt::format("a message ({}) that has no place there", name_of(type)),
              "messages as understudy-channel(5) says",
              "the same release on both sides; report it if it is");
}

LinkEnd ended_by_crowd(const std::string& peer, size_t limit) {
  return make(Kind::kBadPeer, "CHAN-015", connection(peer, "was dropped"),
              fmt::format("more than {} connections that had not said who they are", limit),
              "a network where only the peer reaches this port",
              "find out who connects; a firewall");
}

}  // namespace us::log
