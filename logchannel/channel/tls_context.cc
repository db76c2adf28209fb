#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string_view>

#include "base/check.h"
#include "logchannel/channel/tls.h"
#include "logchannel/channel/tls_failure.h"

namespace us::log {
namespace {

// Both hash with SHA-256, as the key's derivation does: a pre-shared key belongs to one hash
// (RFC 8446 4.2.11).
constexpr char kCiphers[] = "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256";
constexpr unsigned char kPskCipher[] = {0x13, 0x01};  // TLS_AES_128_GCM_SHA256, RFC 8446 B.4
constexpr std::string_view kPskIdentity = "understudy-1";

// Where OpenSSL's context keeps ours.
int context_index() {
  static const int index = SSL_CTX_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  US_CHECK(index >= 0);
  return index;
}

const TlsContext& context_of(SSL* ssl) {
  return *static_cast<const TlsContext*>(
      SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), context_index()));
}

SSL_SESSION* session_of_key(SSL* ssl) {
  const Bytes& key = context_of(ssl).key();
  SSL_SESSION* session = SSL_SESSION_new();
  const SSL_CIPHER* cipher = SSL_CIPHER_find(ssl, kPskCipher);
  const auto* name = reinterpret_cast<const unsigned char*>(kPskIdentity.data());
  const bool made = session != nullptr && cipher != nullptr &&
                    SSL_SESSION_set1_id_context(session, name, kPskIdentity.size()) == 1 &&
                    SSL_SESSION_set1_master_key(session, key.data(), key.size()) == 1 &&
                    SSL_SESSION_set_cipher(session, cipher) == 1 &&
                    SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1;
  US_CHECK(made, "no TLS session of the pre-shared key");
  return session;
}

int offer_key(SSL* ssl, const EVP_MD* hash, const unsigned char** identity, size_t* identity_bytes,
              SSL_SESSION** session) {
  *session = session_of_key(ssl);
  *identity = reinterpret_cast<const unsigned char*>(kPskIdentity.data());
  *identity_bytes = kPskIdentity.size();
  // After a HelloRetryRequest the hash is settled.
  if (hash != nullptr && EVP_MD_get_type(hash) != NID_sha256) {
    SSL_SESSION_free(*session);
    *session = nullptr;
  }
  return 1;
}

int find_key(SSL* ssl, const unsigned char* identity, size_t identity_bytes,
             SSL_SESSION** session) {
  const std::string_view named(reinterpret_cast<const char*>(identity), identity_bytes);
  *session = named == kPskIdentity ? session_of_key(ssl) : nullptr;
  return 1;
}

UserError unusable(const std::string& path, const std::string& seen, const std::string& needed) {
  return {"CHAN-002",
          ExitCode::kUsage,
          fmt::format("cannot use {} as credentials of the log channel", path),
          seen,
          needed,
          "cert.pem and key.pem of this host and ca.pem of the authority that signed both hosts' "
          "certificates, all in PEM"};
}

}  // namespace

Result<std::shared_ptr<const TlsContext>> TlsContext::make(const Credentials& credentials) {
  US_CHECK(credentials.kind != CredentialKind::kPlaintext);
  std::shared_ptr<TlsContext> made(new TlsContext);
  made->context_ = SSL_CTX_new(TLS_method());
  US_CHECK(made->context_ != nullptr, "out of memory");
  made->kind_ = credentials.kind;
  auto loaded = made->load(credentials);
  if (!loaded) return loaded.error();
  return std::shared_ptr<const TlsContext>(std::move(made));
}

TlsContext::~TlsContext() {
  SSL_CTX_free(context_);
  OPENSSL_cleanse(key_.data(), key_.size());
}

Status TlsContext::load(const Credentials& credentials) {
  SSL_CTX_set_min_proto_version(context_, TLS1_3_VERSION);
  SSL_CTX_set_max_proto_version(context_, TLS1_3_VERSION);
  US_CHECK(SSL_CTX_set_ciphersuites(context_, kCiphers) == 1);
  SSL_CTX_set_options(context_, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_num_tickets(context_, 0);
  SSL_CTX_set_max_early_data(context_, 0);
  // All that came goes over in one piece, not header and rest of each record apart.
  SSL_CTX_set_read_ahead(context_, 1);
  SSL_CTX_set_session_cache_mode(context_, SSL_SESS_CACHE_OFF);
  US_CHECK(SSL_CTX_set_ex_data(context_, context_index(), this) == 1);
  // OpenSSL wants one wherever a session and a peer to verify meet.
  const auto* name = reinterpret_cast<const unsigned char*>(kPskIdentity.data());
  US_CHECK(SSL_CTX_set_session_id_context(context_, name, kPskIdentity.size()) == 1);
  // With a key there is no authority to vouch for a certificate: none passes.
  SSL_CTX_set_verify(context_, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  if (kind_ == CredentialKind::kPsk) {
    US_CHECK(credentials.key.size() == 32, "a key of {} bytes", credentials.key.size());
    key_ = credentials.key;
    SSL_CTX_set_psk_use_session_callback(context_, offer_key);
    SSL_CTX_set_psk_find_session_callback(context_, find_key);
    return Done{};
  }
  ERR_clear_error();
  if (SSL_CTX_use_certificate_chain_file(context_, credentials.certificate.c_str()) != 1) {
    return unusable(credentials.certificate, openssl_says(), "this host's certificate");
  }
  if (SSL_CTX_use_PrivateKey_file(context_, credentials.private_key.c_str(), SSL_FILETYPE_PEM) !=
          1 ||
      SSL_CTX_check_private_key(context_) != 1) {
    return unusable(credentials.private_key, openssl_says(), "the certificate's private key");
  }
  if (SSL_CTX_load_verify_file(context_, credentials.authority.c_str()) != 1) {
    return unusable(credentials.authority, openssl_says(), "the authority's certificate");
  }
  return Done{};
}

}  // namespace us::log
