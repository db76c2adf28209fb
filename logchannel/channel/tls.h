// TLS 1.3 of one connection (RFC 8446) without its socket: bytes of the wire go in and out of
// buffers. Both sides prove who they are: by a key they share, or by certificates of one authority.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "logchannel/channel/credentials.h"

struct ssl_ctx_st;
struct ssl_st;
struct bio_st;

namespace us::log {

// What all connections with the same credentials share.
class TlsContext {
 public:
  // Error CHAN-002: files of certificates that cannot be read or do not belong together.
  // Precondition: not kPlaintext.
  static Result<std::shared_ptr<const TlsContext>> make(const Credentials& credentials);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

  ssl_ctx_st* get() const { return context_; }
  CredentialKind kind() const { return kind_; }
  const Bytes& key() const { return key_; }

 private:
  TlsContext() = default;
  Status load(const Credentials& credentials);

  ssl_ctx_st* context_ = nullptr;
  CredentialKind kind_ = CredentialKind::kPsk;
  Bytes key_;
};

struct TlsFailure {
  enum class Kind : uint8_t {
    kWrongKey,     // the peer's pre-shared key is not ours
    kCertificate,  // a certificate was not accepted, here or there
    kOtherKind,    // key against certificates, or no version or cipher in common
    kNotTls,       // the first bytes are none of TLS
    kNoTlsThere,   // the peer says that it does not speak TLS 1.3
    kBroken,       // anything else: records that were forged, damaged or out of place
  };
  Kind kind = Kind::kBroken;
  std::string seen{};  // in OpenSSL's words
};

class Tls {
 public:
  enum class Side : uint8_t { kClient, kServer };
  enum class Step : uint8_t {
    kDone,
    kWantsInput,  // nothing more until bytes come
    kClosed,      // the peer ended the stream in order
    kFailed,      // failure() says why; what is in `out` tells the peer
  };

  // Appends bytes for the peer to `out`, which must outlive this.
  Tls(std::shared_ptr<const TlsContext> context, Side side, Bytes& out);
  ~Tls();
  Tls(const Tls&) = delete;
  Tls& operator=(const Tls&) = delete;

  // The bytes that came, until the next call; unread() of them are left.
  void set_input(ByteSpan bytes) { input_ = bytes; }
  size_t unread() const { return input_.size(); }

  // Until kDone; then both sides have proved who they are (a server's client with certificates
  // knows only by the first bytes it reads).
  Step handshake();
  // kDone: `n` bytes, at least one.
  Step read(std::span<uint8_t> into, size_t& n);
  // Reading would only find that it wants input. False says nothing: what is left may be part of a
  // record.
  bool dry() const;
  // False: the stream is broken; reading says why.
  bool write(ByteSpan bytes);
  // Ends our direction. Nothing may be written afterwards.
  void close_notify();

  const TlsFailure& failure() const { return failure_; }

 private:
  friend struct TlsBio;
  Step step_of(int result, bool handshaking);

  std::shared_ptr<const TlsContext> context_;
  ssl_st* ssl_ = nullptr;
  ByteSpan input_{};
  Bytes& out_;
  TlsFailure failure_{};
};

}  // namespace us::log
