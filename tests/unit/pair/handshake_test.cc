// Who a standby lets in, and what it says to the others.
#include <doctest/doctest.h>
#include <vector>

#include "replay-engine/pair/standby_side.h"

namespace us::replay {
namespace {

class Words final : public StandbyActions {
 public:
  void send(LinkId, const log::Message& message) override { said.push_back(message); }
  void drop_link(LinkId) override {}
  void pause_reading(LinkId, bool) override {}
  void session_begun() override {}
  void event(const std::string&, const std::string&) override {}
  const log::Welcome& answer() const { return std::get<log::Welcome>(said.back()); }
  std::vector<log::Message> said;
};

struct Fixture {
  Words words;
  OutputGate gate{[] { return std::chrono::nanoseconds(0); }, nullptr};
  StandbySide side;
  log::Hello hello{.vm_name = "web1", .contract = "soft-1", .generation = 5, .session = {1}};
  Fixture() : side(options(), gate, words) { hello.config_digest = {7}; }
  static PairOptions options() {
    PairOptions o;
    o.vm_name = "web1";
    return o;
  }
  log::Welcome greet(const log::Hello& with, LinkId link) {
    side.message(std::chrono::seconds(1), link, with);
    return words.answer();
  }
};

TEST_CASE("a session that comes back is resumed, one that says another machine is refused") {
  Fixture f;
  CHECK(f.greet(f.hello, 1).verdict == log::WelcomeVerdict::kFresh);
  CHECK(f.greet(f.hello, 2).verdict == log::WelcomeVerdict::kResume);
  log::Hello other = f.hello;
  other.config_digest = {8};
  const log::Welcome answer = f.greet(other, 3);
  CHECK(answer.verdict == log::WelcomeVerdict::kRefused);
  CHECK(answer.reason == log::RefuseReason::kConfig);
  const auto session = f.side.take_session();
  REQUIRE(session.has_value());
  CHECK(session->config_digest == f.hello.config_digest);
}

TEST_CASE("another version, contract, VM or an old generation is refused with its reason") {
  Fixture f;
  const auto refused = [&](log::Hello hello) { return f.greet(hello, 1).reason; };
  log::Hello h = f.hello;
  h.version = 99;
  CHECK(refused(h) == log::RefuseReason::kVersion);
  h = f.hello;
  h.contract = "other-1";
  CHECK(refused(h) == log::RefuseReason::kContract);
  h = f.hello;
  h.vm_name = "web2";
  CHECK(refused(h) == log::RefuseReason::kOtherVm);
  CHECK(f.greet(f.hello, 1).verdict == log::WelcomeVerdict::kFresh);
  h = f.hello;
  h.generation = 4;
  CHECK(refused(h) == log::RefuseReason::kOldGeneration);
  h = f.hello;
  h.session = {2};
  CHECK(refused(h) == log::RefuseReason::kBusy);
}

}  // namespace
}  // namespace us::replay
