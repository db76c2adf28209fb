#include "logchannel/channel/credentials.h"

#include <doctest/doctest.h>

#include "logchannel/channel/link.h"
#include "pki.h"

namespace us::log {
namespace {

std::string id_of(const std::string& text) {
  const auto loaded = load_credentials(text);
  return loaded ? "loaded" : loaded.error().id;
}

std::string hex(const Bytes& bytes) {
  std::string out;
  for (const uint8_t byte : bytes) out += fmt::format("{:02x}", byte);
  return out;
}

}  // namespace

TEST_CASE("a key file of 16 bytes becomes the key that the protocol page says") {
  const TempFolder folder;
  const auto loaded = load_credentials("psk:" + folder.write("key", "0123456789abcdef"));
  REQUIRE(loaded.ok());
  CHECK(loaded->kind == CredentialKind::kPsk);
  // openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt key:0123456789abcdef
  //   -kdfopt salt:'understudy channel' -kdfopt info:'understudy-1 tls13 psk sha256' HKDF
  CHECK(hex(loaded->key) == "7b21a3e9a8c4e5fd87d475637e1882408bd0adb3ca844713c9b4c74c0c442671");
}

TEST_CASE("a newline at a key file's end makes no other key; one inside does") {
  const TempFolder folder;
  const std::string text = "0123456789abcdef";
  const auto plain = load_credentials("psk:" + folder.write("a", text));
  const auto newline = load_credentials("psk:" + folder.write("b", text + "\n"));
  const auto inside = load_credentials("psk:" + folder.write("c", text + "\n\n"));
  REQUIRE((plain.ok() && newline.ok() && inside.ok()));
  CHECK(plain->key == newline->key);
  CHECK(plain->key != inside->key);
}

TEST_CASE("key files that are missing, too short, too long or no files are CHAN-002") {
  const TempFolder folder;
  const std::string base = "psk:" + folder.path().string();
  CHECK(id_of(base + "/none") == "CHAN-002");
  CHECK(id_of(base) == "CHAN-002");
  CHECK(id_of("psk:" + folder.write("empty", "")) == "CHAN-002");
  CHECK(id_of("psk:" + folder.write("short", std::string(15, 'k') + "\n")) == "CHAN-002");
  CHECK(id_of("psk:" + folder.write("long", std::string(4097, 'k'))) == "CHAN-002");
  CHECK(id_of("psk:" + folder.write("enough", std::string(16, 'k') + "\n")) == "loaded");
  CHECK(id_of("psk:" + folder.write("full", std::string(4096, 'k'))) == "loaded");
}

TEST_CASE("a key that others may read or write is CHAN-003") {
  const TempFolder folder;
  for (const unsigned mode : {0640U, 0604U, 0620U, 0602U, 0666U}) {
    CHECK(id_of("psk:" + folder.write("key", std::string(32, 'k'), mode)) == "CHAN-003");
  }
  CHECK(id_of("psk:" + folder.write("key", std::string(32, 'k'), 0400)) == "loaded");
}

TEST_CASE("forms of credentials that nobody knows are CHAN-001") {
  for (const char* text : {"", "psk", "psk:", "cert:", "PSK:x", "none", "plaintext:", "x:y"}) {
    CHECK(id_of(text) == "CHAN-001");
  }
  CHECK(id_of("plaintext") == "loaded");
}

TEST_CASE("a folder of certificates loads; one with a part missing or foreign is CHAN-002") {
  const Authority authority("authority");
  const TempFolder folder, other;
  authority.issue(folder, "host1");
  authority.issue(other, "host2");
  const std::string text = "cert:" + folder.path().string();
  CHECK(id_of(text) == "loaded");
  for (const char* name : {"cert.pem", "key.pem", "ca.pem"}) {
    std::filesystem::rename(folder.path() / name, folder.path() / "away");
    CHECK(id_of(text) == "CHAN-002");
    folder.write(name, "no PEM at all\n");
    CHECK(id_of(text) == "CHAN-002");
    std::filesystem::rename(folder.path() / "away", folder.path() / name);
    CHECK(id_of(text) == "loaded");
  }
  std::filesystem::permissions(folder.path() / "key.pem", std::filesystem::perms(0644));
  CHECK(id_of(text) == "CHAN-003");
  std::filesystem::copy(other.path() / "key.pem", folder.path() / "key.pem",
                        std::filesystem::copy_options::overwrite_existing);
  std::filesystem::permissions(folder.path() / "key.pem", std::filesystem::perms(0600));
  CHECK(id_of(text) == "CHAN-002");
}

TEST_CASE("endpoints parse and print; what is none is CHAN-004") {
  const auto named = parse_endpoint("host2:7077", "--secondary");
  REQUIRE(named.ok());
  CHECK(named->host == "host2");
  CHECK(named->port == 7077);
  CHECK(named->text() == "host2:7077");
  const auto six = parse_endpoint("[::1]:0", "--listen");
  REQUIRE(six.ok());
  CHECK(six->host == "::1");
  CHECK(six->text() == "[::1]:0");
  for (const char* text : {"", ":", "host", "host:", ":7077", "::1:7077", "[]:1", "[::1]",
                           "h:65536", "h:-1", "h:7a", "h: 7", "[host]:7", "a b:7", "[::1:7"}) {
    CAPTURE(text);
    const auto parsed = parse_endpoint(text, "--secondary");
    REQUIRE_FALSE(parsed.ok());
    CHECK(parsed.error().id == "CHAN-004");
  }
}

}  // namespace us::log
