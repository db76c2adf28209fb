// The ways in which a connection ends, in words. No sockets here.
#pragma once

#include <chrono>
#include <string>

#include "logchannel/channel/credentials.h"
#include "logchannel/channel/link.h"
#include "logchannel/channel/message.h"
#include "logchannel/channel/tls.h"

namespace us::log {

// What the first bytes of a peer look like.
enum class Speech : uint8_t { kUnknown, kNothing, kTls, kPlain, kHttp, kSsh };
Speech speech_of(ByteSpan first_bytes);
// Enough of them to tell.
constexpr size_t kSpeechBytes = kMessageHeaderBytes + sizeof kHelloMagic;

LinkEnd ended_here();
LinkEnd ended_by_peer(const std::string& peer, const std::string& seen);
// `error` is an errno value, seen while reading or writing.
LinkEnd ended_by_network(const std::string& peer, int error);
// While connecting; `seen` in the system's words.
LinkEnd ended_unconnected(const std::string& peer, bool refused, const std::string& seen);
LinkEnd ended_out_of_time(const std::string& peer, const std::string& what,
                          std::chrono::milliseconds limit);
LinkEnd ended_by_tls(const std::string& peer, const TlsFailure& failure, ByteSpan first_bytes);
// The peer is gone in the middle of the handshake.
LinkEnd ended_in_handshake(const std::string& peer, const std::string& seen);
LinkEnd ended_by_message(const std::string& peer, CredentialKind kind, MessageError error,
                         ByteSpan first_bytes);
// The owner of the link refused a message.
LinkEnd ended_by_owner(const std::string& peer, MessageType type);
LinkEnd ended_by_crowd(const std::string& peer, size_t limit);

}  // namespace us::log
