// The file arbiter: who wins, who loses, and what nobody can tell.
#include "replay-engine/arbiter/file_arbiter.h"

#include <doctest/doctest.h>
#include <thread>

#include "replay-engine/arbiter/bounded_arbiter.h"
#include "replay-engine/arbiter/claim_record.h"
#include "tests/unit/arbiter/rig.h"

using namespace us;
using namespace us::replay;
using namespace us::replay::testing;

namespace {

std::unique_ptr<Arbiter> opened(const std::string& path, const ArbiterOptions& options) {
  auto arbiter = open_arbiter("file:" + path, options);
  REQUIRE(arbiter.ok());
  return std::move(arbiter).value();
}

}  // namespace

TEST_CASE("of two nodes that claim a generation the first wins and the second is told who did") {
  TestFolder folder;
  const auto a = opened(folder.file("web1.lock"), node("host1:1"));
  const auto b = opened(folder.file("web1.lock"), node("host2:1"));
  CHECK(a->claim(1).verdict == ClaimVerdict::kWon);
  const Claim lost = b->claim(1);
  CHECK(lost.verdict == ClaimVerdict::kLost);
  CHECK(lost.generation == 1);
  CHECK(lost.holder == "host1:1");
  CHECK(lost.detail.find("host1:1") != std::string::npos);
}

TEST_CASE("a claim repeated by its winner is won again, also by a process started anew") {
  TestFolder folder;
  const std::string path = folder.file("lock");
  CHECK(opened(path, node("a"))->claim(3).verdict == ClaimVerdict::kWon);
  const auto again = opened(path, node("a"));
  CHECK(again->claim(3).verdict == ClaimVerdict::kWon);
  CHECK(again->claim(3).holder == "a");
  CHECK(folder.files() == 1);
}

TEST_CASE("a claim of a generation below the latest is lost, even one that this node once won") {
  TestFolder folder;
  const auto a = opened(folder.file("lock"), node("a"));
  const auto b = opened(folder.file("lock"), node("b"));
  CHECK(a->claim(4).verdict == ClaimVerdict::kWon);
  CHECK(b->claim(5).verdict == ClaimVerdict::kWon);
  for (const uint64_t old : {1u, 3u, 4u}) {
    const Claim claim = a->claim(old);
    CHECK(claim.verdict == ClaimVerdict::kLost);
    CHECK(claim.generation == 5);
    CHECK(claim.holder == "b");
  }
  CHECK(folder.files() == 2);
}

TEST_CASE("look says none at first, then the latest generation and its holder, then released") {
  TestFolder folder;
  const auto a = opened(folder.file("lock"), node("a"));
  const auto b = opened(folder.file("lock"), node("b"));
  CHECK(a->look()->generation == 0);
  CHECK(a->claim(9).verdict == ClaimVerdict::kWon);
  CHECK(b->claim(10).verdict == ClaimVerdict::kWon);
  auto state = a->look();
  REQUIRE(state.ok());
  CHECK(state->generation == 10);
  CHECK(state->holder == "b");
  CHECK_FALSE(state->released);
  CHECK(a->release(10).ok());  // not its own: nothing happens
  CHECK_FALSE(a->look()->released);
  CHECK(b->release(11).ok());  // never claimed
  CHECK(b->release(10).ok());
  CHECK(b->release(10).ok());
  CHECK(a->look()->released);
  CHECK(a->look()->generation == 10);
  CHECK(a->claim(11).verdict == ClaimVerdict::kWon);
  CHECK_FALSE(a->look()->released);
}

TEST_CASE("a file of another VM is no answer: unreachable, and the message names both VMs") {
  TestFolder folder;
  const auto a = opened(folder.file("lock"), node("a", "web1"));
  const auto b = opened(folder.file("lock"), node("a", "mail"));
  CHECK(a->claim(1).verdict == ClaimVerdict::kWon);
  for (const uint64_t generation : {1u, 2u}) {
    const Claim claim = generation == 2 ? b->claim(1) : b->claim(generation);
    CHECK(claim.verdict == ClaimVerdict::kUnreachable);
    CHECK(claim.detail.find("web1") != std::string::npos);
    CHECK(claim.detail.find("mail") != std::string::npos);
  }
  const auto state = b->look();
  REQUIRE_FALSE(state.ok());
  CHECK(state.error().id == "ARB-002");
  CHECK_FALSE(b->release(1).ok());
}

TEST_CASE("a claim's file holds the documented text and nothing else remains in the folder") {
  TestFolder folder;
  CHECK(opened(folder.file("lock"), node("host 1"))->claim(7).verdict == ClaimVerdict::kWon);
  CHECK(folder.files() == 1);
  const std::string text = contents(folder.file("lock.7"));
  CHECK(text.starts_with("understudy-arbiter 1\nvm web1\ngeneration 7\nholder host 1\ntime 20"));
  CHECK(text.ends_with("Z\n"));
}

TEST_CASE("damaged files, other versions and senseless names are unreachable, never won or lost") {
  const std::string good = format_claim({"web1", 2, "b", "2026-01-01T00:00:00Z"});
  const std::string bad[] = {"",
                             "understudy-arbiter 2\n" + good.substr(good.find('\n') + 1),
                             good.substr(0, good.size() - 1),
                             good + "more\n",
                             good + good,
                             format_claim({"web1", 3, "b", "now"}),
                             std::string(1 << 20, 'x'),
                             std::string(64, '\0')};
  for (const std::string& text : bad) {
    TestFolder folder;
    put(folder.file("lock.2"), text);
    const auto a = opened(folder.file("lock"), node("a"));
    CHECK(a->claim(1).verdict == ClaimVerdict::kUnreachable);
    CHECK(a->claim(2).verdict == ClaimVerdict::kUnreachable);
    CHECK_FALSE(a->look().ok());
  }
  for (const char* name :
       {"lock.0", "lock.007", "lock.99999999999", "lock.184467440737095516160"}) {
    TestFolder folder;
    put(folder.file(name), good);
    const auto a = opened(folder.file("lock"), node("a"));
    CHECK(a->claim(1).verdict == ClaimVerdict::kUnreachable);
    CHECK_FALSE(a->look().ok());
  }
}

TEST_CASE("names that only look like a generation's are passed over") {
  TestFolder folder;
  for (const char* name : {"lock", "lock.", "lock.2x", "lock.-3", "lock.9.released", "lock2.9",
                           ".lock.9", "lock.5.new"}) {
    if (std::string(name) != "lock.") put(folder.file(name), "x");
  }
  const auto a = opened(folder.file("lock"), node("a"));
  CHECK(a->look()->generation == 0);
  CHECK(a->claim(1).verdict == ClaimVerdict::kWon);
}

TEST_CASE("a folder that is missing or full of something else is unreachable, and says so") {
  TestFolder folder;
  const auto a = opened(folder.file("missing/lock"), node("a"));
  const Claim claim = a->claim(1);
  CHECK(claim.verdict == ClaimVerdict::kUnreachable);
  CHECK(claim.detail.find("No such file") != std::string::npos);
  put(folder.file("plain"), "");
  CHECK(opened(folder.file("plain/lock"), node("a"))->claim(1).verdict ==
        ClaimVerdict::kUnreachable);
  std::filesystem::create_directory(folder.file("lock.1"));
  CHECK(opened(folder.file("lock"), node("a"))->claim(1).verdict == ClaimVerdict::kUnreachable);
}

TEST_CASE("an arbiter's text of no known form and unusable names are errors with their ids") {
  for (const char* text : {"", "file:", "file://", "file://host/x", "file:/a/", "zookeeper:x",
                           "/plain/path", "etcd:", "etcd://", "etcd:host", "etcd://host:0",
                           "etcd://host:99999", "etcd://a:1,", "etcd://a:1,,b:2", "etcd://a b:1",
                           "etcd://a:1/x", "etcd://::1:2379", "etcd://https://a:1"}) {
    const auto arbiter = open_arbiter(text, node("a"));
    REQUIRE_MESSAGE(!arbiter.ok(), text);
    CHECK(arbiter.error().id == "ARB-001");
  }
  for (const char* text :
       {"file:///a/b", "file:/a/b", "file:b", "etcd://a:1", "etcd:a:1,b:2", "etcd://[::1]:2379"})
    CHECK_MESSAGE(open_arbiter(text, node("a")).ok(), text);
  for (const std::string& name :
       {std::string(), std::string("a\nb"), std::string(300, 'a'), std::string("a\0b", 3)}) {
    CHECK(open_arbiter("file:/a/b", node(name)).error().id == "ARB-003");
    CHECK(open_arbiter("file:/a/b", node("a", name)).error().id == "ARB-003");
  }
  CHECK(open_arbiter("file:/a/b", node("a", "x/y")).error().id == "ARB-003");
  CHECK(open_arbiter("file:/a/b", node("a", ".x")).error().id == "ARB-003");
}

TEST_CASE(
    "storage that hangs keeps no caller, and a claim that it then lets through is found won") {
  TestFolder folder;
  const auto calls = std::make_shared<HangingCalls>();
  ArbiterOptions me = node("a");
  me.timeout = std::chrono::milliseconds(30);
  std::shared_ptr<Arbiter> inner = make_file_arbiter(folder.file("lock"), me, calls);
  const auto a = make_bounded_arbiter(inner, me.timeout);
  calls->hang();
  // That these return at all is the test: the storage lets go only afterwards.
  const Claim claim = a->claim(1);
  CHECK(claim.verdict == ClaimVerdict::kUnreachable);
  CHECK(claim.detail.find("30 ms") != std::string::npos);
  CHECK(a->claim(1).verdict == ClaimVerdict::kUnreachable);
  CHECK_FALSE(a->look().ok());
  CHECK(folder.files() == 1);  // one attempt, not three
  calls->go_on();
  Claim later;
  for (int i = 0; i < 2000 && later.verdict == ClaimVerdict::kUnreachable; ++i) later = a->claim(1);
  CHECK(later.verdict == ClaimVerdict::kWon);
}

TEST_CASE("an arbiter whose storage hangs can be destroyed") {
  TestFolder folder;
  const auto calls = std::make_shared<HangingCalls>();
  calls->hang();
  std::shared_ptr<Arbiter> inner = make_file_arbiter(folder.file("lock"), node("a"), calls);
  const std::weak_ptr<Arbiter> watched = inner;
  {
    const auto a = make_bounded_arbiter(std::move(inner), std::chrono::milliseconds(20));
    CHECK(a->claim(1).verdict == ClaimVerdict::kUnreachable);
  }
  CHECK_FALSE(watched.expired());  // its thread still has it
  calls->go_on();
  while (!watched.expired()) std::this_thread::yield();
  CHECK(std::filesystem::exists(folder.file("lock.1")));
}
