#include "pair.h"

#include <doctest/doctest.h>

namespace us::log {

Network::Connected Side::on_link() {
  return [this](LinkPtr link) {
    links.put(std::move(link));
    return Link::Handlers{[this](Message message) {
                            messages.put(std::move(message));
                            return true;
                          },
                          [this](const LinkEnd& end) { ends.put(end); }};
  };
}

Network::Failed Side::on_failed() {
  return [this](const LinkEnd& end) { failed.put(end); };
}

Pair::Pair(const Credentials& listening, const Credentials& connecting_with)
    : connecting(connecting_with),
      secondary_network(Network::start()),
      primary_network(Network::start()) {
  at.host = "127.0.0.1";
  const auto port =
      secondary_network->listen(at, listening, secondary.on_link(), secondary.on_failed());
  REQUIRE(port.ok());
  at.port = *port;
}

void Pair::connect() {
  primary_network->connect(at, connecting, kPatience, primary.on_link(), primary.on_failed());
}

void Pair::greet() {
  connect();
  const auto outgoing = primary.links.take();
  REQUIRE(outgoing.has_value());
  to_secondary = *outgoing;
  to_secondary->send(sample_hello());
  const auto incoming = secondary.links.take();
  REQUIRE(incoming.has_value());
  to_primary = *incoming;
  const auto hello = secondary.messages.take();
  REQUIRE(hello.has_value());
  CHECK(*hello == Message(sample_hello()));
  to_primary->send(sample_welcome());
  const auto welcome = primary.messages.take();
  REQUIRE(welcome.has_value());
  CHECK(*welcome == Message(sample_welcome()));
}

Credentials plaintext() {
  Credentials credentials;
  credentials.kind = CredentialKind::kPlaintext;
  return credentials;
}

Credentials psk(uint8_t seed) {
  Credentials credentials;
  credentials.key = Bytes(32, seed);
  return credentials;
}

Hello sample_hello() {
  Hello hello;
  hello.vm_name = "web1";
  hello.node = "host1";
  hello.contract = "soft-1";
  hello.config_digest = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  hello.generation = 7;
  hello.session = {0xa0, 0xa1, 0xa2, 0xa3};
  hello.first_sequence = 0x1122334455667788;
  return hello;
}

Welcome sample_welcome() {
  Welcome welcome;
  welcome.node = "host2";
  welcome.verdict = WelcomeVerdict::kRefused;
  welcome.reason = RefuseReason::kOldGeneration;
  welcome.next_sequence = 42;
  welcome.generation = 9;
  welcome.text = "generation 9 was seen here";
  return welcome;
}

Bytes encoded(const Message& message) {
  Bytes out;
  encode(message, out);
  return out;
}

}  // namespace us::log
