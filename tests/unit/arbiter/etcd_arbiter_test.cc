// The etcd arbiter against a real etcd.
#include "replay-engine/arbiter/etcd_arbiter.h"

#include <doctest/doctest.h>

#include "tests/unit/arbiter/etcd_server.h"

using namespace us;
using namespace us::replay;
using namespace us::replay::testing;

namespace {

// One server for the cases below; each uses a VM's name of its own.
EtcdServer* etcd() {
  static const std::unique_ptr<EtcdServer> server = EtcdServer::start();
  return server.get();
}

std::unique_ptr<Arbiter> opened(const std::string& endpoints, const ArbiterOptions& options) {
  auto arbiter = open_arbiter("etcd://" + endpoints, options);
  REQUIRE(arbiter.ok());
  return std::move(arbiter).value();
}

}  // namespace

TEST_CASE("etcd: the first claim of a generation wins, repeated too; others and older ones lose") {
  if (etcd() == nullptr) return;
  const auto a = opened(etcd()->endpoint(), node("a", "vm-claims"));
  const auto b = opened(etcd()->endpoint(), node("b", "vm-claims"));
  CHECK(a->look()->generation == 0);
  CHECK(a->claim(2).verdict == ClaimVerdict::kWon);
  CHECK(a->claim(2).verdict == ClaimVerdict::kWon);
  Claim lost = b->claim(2);
  CHECK(lost.verdict == ClaimVerdict::kLost);
  CHECK(lost.holder == "a");
  CHECK(lost.generation == 2);
  CHECK(b->claim(1).verdict == ClaimVerdict::kLost);
  CHECK(b->claim(12).verdict == ClaimVerdict::kWon);  // two digits sort after one
  lost = a->claim(2);
  CHECK(lost.verdict == ClaimVerdict::kLost);
  CHECK(lost.generation == 12);
  CHECK(lost.holder == "b");
  CHECK(a->claim(3).verdict == ClaimVerdict::kLost);
  const auto state = a->look();
  REQUIRE(state.ok());
  CHECK(state->generation == 12);
  CHECK(state->holder == "b");
}

TEST_CASE("etcd: a release is seen by both, and only its holder's counts") {
  if (etcd() == nullptr) return;
  const auto a = opened(etcd()->endpoint(), node("a", "vm-release"));
  const auto b = opened(etcd()->endpoint(), node("b", "vm-release"));
  CHECK(a->release(1).ok());
  CHECK(a->claim(1).verdict == ClaimVerdict::kWon);
  CHECK(b->release(1).ok());
  CHECK_FALSE(b->look()->released);
  CHECK(a->release(1).ok());
  CHECK(b->look()->released);
  CHECK(b->claim(2).verdict == ClaimVerdict::kWon);
  CHECK_FALSE(a->look()->released);
}

TEST_CASE("etcd: VMs whose names begin alike know nothing of one another") {
  if (etcd() == nullptr) return;
  const std::string names[] = {"vm-x", "vm-x0", "vm-x.generation", "vm-", "vm-x 1", "v\xc3\xb6m"};
  for (const std::string& name : names)
    CHECK(opened(etcd()->endpoint(), node("n-" + name, name))->claim(5).verdict ==
          ClaimVerdict::kWon);
  for (const std::string& name : names) {
    const auto state = opened(etcd()->endpoint(), node("other", name))->look();
    REQUIRE(state.ok());
    CHECK(state->generation == 5);
    CHECK(state->holder == "n-" + name);
  }
}

TEST_CASE(
    "etcd: an endpoint that refuses or hangs is passed over, and the answer comes from the next") {
  if (etcd() == nullptr) return;
  const auto silent = EtcdServer::start();
  silent->freeze(true);
  ArbiterOptions me = node("a", "vm-endpoints");
  me.timeout = std::chrono::seconds(10);
  const std::string refusing = fmt::format("127.0.0.1:{}", free_port());
  const auto a = opened(refusing + "," + silent->endpoint() + "," + etcd()->endpoint(), me);
  CHECK(a->claim(1).verdict == ClaimVerdict::kWon);
  CHECK(a->look()->holder == "a");
  silent->freeze(false);
}

TEST_CASE(
    "etcd: no server, and one that hangs, are unreachable with a reason that names the place") {
  if (etcd() == nullptr) return;
  ArbiterOptions me = node("a", "vm-away");
  me.timeout = std::chrono::milliseconds(300);
  const std::string nobody = fmt::format("127.0.0.1:{}", free_port());
  const Claim refused = opened(nobody, me)->claim(1);
  CHECK(refused.verdict == ClaimVerdict::kUnreachable);
  CHECK(refused.detail.find(nobody) != std::string::npos);
  const auto state = opened(nobody, me)->look();
  REQUIRE_FALSE(state.ok());
  CHECK(state.error().id == "ARB-002");
  CHECK_FALSE(opened(nobody, me)->release(1).ok());

  const auto server = EtcdServer::start();
  const auto a = opened(server->endpoint(), me);
  server->freeze(true);
  CHECK(a->claim(1).verdict == ClaimVerdict::kUnreachable);
  server->freeze(false);
}

TEST_CASE("etcd: a generation won is still won after every member was killed and started again") {
  if (etcd() == nullptr) return;
  const auto server = EtcdServer::start();
  const auto a = opened(server->endpoint(), node("a", "vm-killed"));
  const auto b = opened(server->endpoint(), node("b", "vm-killed"));
  CHECK(a->claim(1).verdict == ClaimVerdict::kWon);
  server->stop();
  CHECK(b->claim(1).verdict == ClaimVerdict::kUnreachable);
  server->restart();
  CHECK(b->claim(1).verdict == ClaimVerdict::kLost);
  CHECK(a->claim(1).verdict == ClaimVerdict::kWon);
}

TEST_CASE("etcd: a key of this VM's that holds something else is unreachable, never won or lost") {
  if (etcd() == nullptr) return;
  const auto endpoint = parse_etcd_endpoints(etcd()->endpoint())->front();
  // "/understudy/vm-odd/generation/0000000007" = "x"
  const auto put = http_post(endpoint, "/v3/kv/put",
                             R"({"key":"L3VuZGVyc3R1ZHkvdm0tb2RkL2dlbmVyYXRpb24vMDAwMDAwMDAwNw==",)"
                             R"("value":"eA=="})",
                             std::chrono::seconds(5));
  REQUIRE(put.ok());
  REQUIRE(put->status == 200);
  const auto a = opened(etcd()->endpoint(), node("a", "vm-odd"));
  CHECK(a->claim(7).verdict == ClaimVerdict::kUnreachable);
  CHECK(a->claim(3).verdict == ClaimVerdict::kUnreachable);
  CHECK_FALSE(a->look().ok());
}
