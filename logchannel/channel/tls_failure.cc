#include "logchannel/channel/tls_failure.h"

#include <cstring>
#include <openssl/err.h>
#include <openssl/ssl.h>

namespace us::log {
namespace {

using Kind = TlsFailure::Kind;

// Alerts that came from the peer have the reason 1000 plus their number (RFC 8446 6.2).
Kind kind_of_reason(int reason, CredentialKind credentials) {
  const bool psk = credentials == CredentialKind::kPsk;
  switch (reason) {
    case SSL_R_BINDER_DOES_NOT_VERIFY: return Kind::kWrongKey;
    // A peer that cannot verify our key's binder says one of these.
    case SSL_R_SSLV3_ALERT_ILLEGAL_PARAMETER:
    case SSL_R_TLSV1_ALERT_DECRYPT_ERROR:
    case SSL_R_TLSV1_ALERT_UNKNOWN_PSK_IDENTITY: return psk ? Kind::kWrongKey : Kind::kCertificate;
    // In PSK mode a certificate says that the peer has other credentials than we.
    case SSL_R_CERTIFICATE_VERIFY_FAILED: return psk ? Kind::kOtherKind : Kind::kCertificate;
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED: return Kind::kCertificate;
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
    case SSL_R_RECORD_LENGTH_MISMATCH: return Kind::kNotTls;
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION: return Kind::kNoTlsThere;
    case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
    case SSL_R_TLSV1_ALERT_INSUFFICIENT_SECURITY:
    case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS:
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW: return Kind::kOtherKind;
    default: return Kind::kBroken;
  }
}

}  // namespace

std::string openssl_says() {
  const unsigned long error = ERR_get_error();
  ERR_clear_error();
  if (error == 0) return "no reason given";
  if (ERR_SYSTEM_ERROR(error)) return std::strerror(ERR_GET_REASON(error));
  const char* reason = ERR_reason_error_string(error);
  return reason != nullptr ? reason : "an unknown error of OpenSSL";
}

TlsFailure tls_failure(CredentialKind kind, bool handshaking) {
  const unsigned long error = ERR_peek_error();
  TlsFailure failure;
  failure.kind = kind_of_reason(ERR_GET_REASON(error), kind);
  // After the handshake a certificate may still be refused; the rest is forged or damaged bytes.
  if (!handshaking && failure.kind != Kind::kCertificate) failure.kind = Kind::kBroken;
  failure.seen = openssl_says();
  return failure;
}

}  // namespace us::log
