#include "logchannel/channel/credentials.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "logchannel/channel/tls.h"

namespace us::log {
namespace {

constexpr size_t kKeyFileMin = 16, kKeyFileMax = 4096;
constexpr size_t kDerivedKeyBytes = 32;
// Part of the protocol: another salt or info makes another key of the same file.
constexpr char kKeySalt[] = "understudy channel";
constexpr char kKeyInfo[] = "understudy-1 tls13 psk sha256";

UserError unreadable(const std::string& path, const std::string& seen, const std::string& needed) {
  return {
      "CHAN-002",
      ExitCode::kUsage,
      fmt::format("cannot use {} as credentials of the log channel", path),
      seen,
      needed,
      "correct the path, or make a key: head -c 32 /dev/urandom | base64 > FILE; chmod 600 FILE"};
}

UserError readable_by_others(const std::string& path, unsigned mode) {
  return {"CHAN-003",
          ExitCode::kUsage,
          fmt::format("the secret in {} is no secret", path),
          fmt::format("file mode {:04o}: others than its owner can get at it", mode),
          "a file that only its owner can read",
          fmt::format("chmod 600 {}, and a new key if others may have read it", path)};
}

// The file's bytes, at most kKeyFileMax + 1 of them; it must be its owner's alone.
Result<Bytes> read_secret(const std::string& path) {
  const std::string needed = "a file with the secret in it";
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return unreadable(path, std::strerror(errno), needed);
  struct stat status {};
  Bytes bytes(kKeyFileMax + 1);
  size_t size = 0;
  int error = ::fstat(fd, &status) == 0 ? 0 : errno;
  if (error == 0 && !S_ISREG(status.st_mode)) error = EINVAL;
  while (error == 0 && size < bytes.size()) {
    const ssize_t n = ::read(fd, bytes.data() + size, bytes.size() - size);
    if (n < 0) error = errno;
    if (n <= 0) break;
    size += static_cast<size_t>(n);
  }
  ::close(fd);
  if (error == EINVAL) return unreadable(path, "no regular file", needed);
  if (error != 0) return unreadable(path, std::strerror(error), needed);
  const unsigned mode = status.st_mode & 07777;
  if ((mode & 077) != 0) return readable_by_others(path, mode);
  bytes.resize(size);
  return bytes;
}

Bytes derive_key(ByteSpan secret) {
  EVP_KDF* kdf = EVP_KDF_fetch(nullptr, "HKDF", nullptr);
  US_CHECK(kdf != nullptr, "OpenSSL has no HKDF");
  EVP_KDF_CTX* context = EVP_KDF_CTX_new(kdf);
  EVP_KDF_free(kdf);
  US_CHECK(context != nullptr, "out of memory");
  char digest[] = "SHA256";
  auto octets = [](const char* name, const void* data, size_t size) {
    return OSSL_PARAM_construct_octet_string(name, const_cast<void*>(data), size);
  };
  const OSSL_PARAM params[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      octets(OSSL_KDF_PARAM_KEY, secret.data(), secret.size()),
      octets(OSSL_KDF_PARAM_SALT, kKeySalt, sizeof kKeySalt - 1),
      octets(OSSL_KDF_PARAM_INFO, kKeyInfo, sizeof kKeyInfo - 1),
      OSSL_PARAM_construct_end(),
  };
  Bytes key(kDerivedKeyBytes);
  const int done = EVP_KDF_derive(context, key.data(), key.size(), params);
  EVP_KDF_CTX_free(context);
  US_CHECK(done == 1, "HKDF failed");
  return key;
}

Result<Credentials> load_psk(const std::string& path) {
  auto secret = read_secret(path);
  if (!secret) return secret.error();
  const std::string needed = fmt::format("{} to {} secret bytes", kKeyFileMin, kKeyFileMax);
  if (secret->size() > kKeyFileMax) {
    return unreadable(path, fmt::format("more than {} bytes", kKeyFileMax), needed);
  }
  if (!secret->empty() && secret->back() == '\n') secret->pop_back();
  if (secret->size() < kKeyFileMin) {
    return unreadable(path, fmt::format("{} bytes", secret->size()), needed);
  }
  Credentials credentials;
  credentials.key = derive_key(*secret);
  OPENSSL_cleanse(secret->data(), secret->size());
  return credentials;
}

Result<Credentials> load_certificates(const std::string& folder) {
  Credentials credentials;
  credentials.kind = CredentialKind::kCertificates;
  credentials.certificate = folder + "/cert.pem";
  credentials.private_key = folder + "/key.pem";
  credentials.authority = folder + "/ca.pem";
  struct stat status {};
  if (::stat(credentials.private_key.c_str(), &status) == 0 && (status.st_mode & 077) != 0) {
    return readable_by_others(credentials.private_key, status.st_mode & 07777);
  }
  // What TLS cannot use is better known now than at the first connection.
  auto context = TlsContext::make(credentials);
  if (!context) return context.error();
  return credentials;
}

}  // namespace

Result<Credentials> load_credentials(const std::string& text) {
  if (text == "plaintext") {
    Credentials credentials;
    credentials.kind = CredentialKind::kPlaintext;
    return credentials;
  }
  const size_t colon = text.find(':');
  const std::string form = text.substr(0, colon);
  const std::string path = colon == std::string::npos ? "" : text.substr(colon + 1);
  if (form == "psk" && !path.empty()) return load_psk(path);
  if (form == "cert" && !path.empty()) return load_certificates(path);
  return UserError{
      "CHAN-001",
      ExitCode::kUsage,
      "the credentials of the log channel are not understood",
      fmt::format("\"{}\"", text),
      "psk:FILE, cert:DIRECTORY, or plaintext",
      "psk:FILE with the same file on both sides; plaintext lets anyone on the network "
      "read and forge the log"};
}

}  // namespace us::log
