// What lets two sides of a channel trust each other: a pre-shared key or certificates, TLS 1.3 in
// both cases (RFC 8446), or nothing, which must be asked for by name.
#pragma once

#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace us::log {

enum class CredentialKind : uint8_t { kPsk, kCertificates, kPlaintext };

struct Credentials {
  CredentialKind kind = CredentialKind::kPsk;
  Bytes key{};  // kPsk: derived from the file's bytes, 32 of them
  std::string certificate{}, private_key{}, authority{};  // kCertificates: PEM paths
};

// "psk:FILE" (a file of at least 16 bytes, readable only by its owner; a trailing newline does not
// count), "cert:DIR" (cert.pem, key.pem, ca.pem), "plaintext" (no protection at all). Errors:
// CHAN-001 unknown form, CHAN-002 cannot be read or is too short, CHAN-003 others can read the key.
Result<Credentials> load_credentials(const std::string& text);

}  // namespace us::log
