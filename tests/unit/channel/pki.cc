#include "pki.h"

#include <cstdlib>
#include <doctest/doctest.h>
#include <fstream>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

namespace us::log {
namespace {

constexpr long kDay = 24 * 60 * 60;

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;

Key new_key() { return {EVP_EC_gen("P-256"), EVP_PKEY_free}; }

Certificate new_certificate(const std::string& name, EVP_PKEY* key, X509* issuer,
                            EVP_PKEY* issuer_key, int days) {
  static long serial = 1;
  Certificate made{X509_new(), X509_free};
  X509* x = made.get();
  X509_set_version(x, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(x), serial++);
  X509_gmtime_adj(X509_getm_notBefore(x), -kDay);
  X509_gmtime_adj(X509_getm_notAfter(x), (days - 1) * kDay);
  X509_set_pubkey(x, key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(x, X509_get_subject_name(issuer ? issuer : x));
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer ? issuer : x, x, nullptr, nullptr, 0);
  const char* constraints = issuer ? "critical,CA:FALSE" : "critical,CA:TRUE";
  X509_EXTENSION* extension =
      X509V3_EXT_conf_nid(nullptr, &context, NID_basic_constraints, constraints);
  X509_add_ext(x, extension, -1);
  X509_EXTENSION_free(extension);
  REQUIRE(X509_sign(x, issuer_key, EVP_sha256()) != 0);
  return made;
}

template <class Write>
std::string pem(Write write) {
  BIO* bio = BIO_new(BIO_s_mem());
  REQUIRE(write(bio) == 1);
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  std::string text(data, static_cast<size_t>(size));
  BIO_free(bio);
  return text;
}

std::string pem_of(X509* x) {
  return pem([&](BIO* bio) { return PEM_write_bio_X509(bio, x); });
}

}  // namespace

TempFolder::TempFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "us-channel-XXXXXX").string();
  REQUIRE(::mkdtemp(name.data()) != nullptr);
  path_ = name;
}

TempFolder::~TempFolder() { std::filesystem::remove_all(path_); }

std::string TempFolder::write(const std::string& name, const std::string& text,
                              unsigned mode) const {
  const auto file = path_ / name;
  std::ofstream(file, std::ios::binary) << text;
  std::filesystem::permissions(file, static_cast<std::filesystem::perms>(mode));
  return file.string();
}

struct Authority::Parts {
  Key key = new_key();
  Certificate certificate;
};

Authority::Authority(const std::string& name) : parts_(new Parts{new_key(), {nullptr, X509_free}}) {
  EVP_PKEY* key = parts_->key.get();
  parts_->certificate = new_certificate(name, key, nullptr, key, 30);
}

Authority::~Authority() = default;

void Authority::issue(const TempFolder& folder, const std::string& name, int days) const {
  const Key key = new_key();
  const Certificate certificate =
      new_certificate(name, key.get(), parts_->certificate.get(), parts_->key.get(), days);
  folder.write("ca.pem", pem_of(parts_->certificate.get()));
  folder.write("cert.pem", pem_of(certificate.get()));
  folder.write("key.pem", pem([&](BIO* bio) {
                 return PEM_write_bio_PrivateKey(bio, key.get(), nullptr, nullptr, 0, nullptr,
                                                 nullptr);
               }));
}

Credentials certificates(const TempFolder& folder) {
  const auto loaded = load_credentials("cert:" + folder.path().string());
  REQUIRE(loaded.ok());
  return *loaded;
}

}  // namespace us::log
