// Two claimants at once, a thousand times.
#include "tests/unit/arbiter/race.h"

#include <doctest/doctest.h>

#include "replay-engine/arbiter/etcd_arbiter.h"
#include "replay-engine/arbiter/file_arbiter.h"
#include "tests/unit/arbiter/etcd_server.h"
#include "tests/unit/arbiter/rig.h"

using namespace us;
using namespace us::replay;
using namespace us::replay::testing;

namespace {

constexpr unsigned kRaces = 1000;

void check_one_winner_each(const RaceResult& result) {
  REQUIRE(result.rounds.size() == kRaces);
  for (unsigned i = 0; i < kRaces; ++i) {
    INFO("generation ", i + 1);
    REQUIRE(result.rounds[i].won == 1);
    REQUIRE(result.rounds[i].lost == 1);
  }
  MESSAGE("wins: ", result.wins[0], " and ", result.wins[1]);
}

}  // namespace

TEST_CASE("file: of two threads that race for 1000 generations exactly one wins each") {
  TestFolder folder;
  check_one_winner_each(race_threads(kRaces, [&](const std::string& name) {
    return std::move(open_arbiter("file:" + folder.file("lock"), node(name))).value();
  }));
}

TEST_CASE("file: of two processes that race for 1000 generations exactly one wins each") {
  TestFolder folder;
  check_one_winner_each(race_processes(kRaces, [&](const std::string& name) {
    return make_file_arbiter(folder.file("lock"), node(name), real_file_calls());
  }));
}

TEST_CASE("etcd: of two threads that race for 1000 generations exactly one wins each") {
  const auto etcd = EtcdServer::start();
  if (etcd == nullptr) return;
  check_one_winner_each(race_threads(kRaces, [&](const std::string& name) {
    return std::move(open_arbiter("etcd://" + etcd->endpoint(), node(name))).value();
  }));
}

TEST_CASE("etcd: of two processes that race for 1000 generations exactly one wins each") {
  const auto etcd = EtcdServer::start();
  if (etcd == nullptr) return;
  const auto endpoints = parse_etcd_endpoints(etcd->endpoint());
  check_one_winner_each(race_processes(
      kRaces, [&](const std::string& name) { return make_etcd_arbiter(*endpoints, node(name)); }));
}
