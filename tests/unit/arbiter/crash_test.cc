// The file arbiter under failing calls and dying processes.
#include <chrono>
#include <csignal>
#include <doctest/doctest.h>
#include <random>
#include <sys/wait.h>
#include <unistd.h>

#include "replay-engine/arbiter/file_arbiter.h"
#include "tests/unit/arbiter/rig.h"

using namespace us;
using namespace us::replay;
using namespace us::replay::testing;

namespace {

using Fault = FaultyCalls::Fault;
constexpr Fault kFaults[] = {Fault::kFails, Fault::kFailsAfter, Fault::kCrashesBefore,
                             Fault::kCrashesAfter};

std::unique_ptr<Arbiter> plain(const TestFolder& folder, const std::string& name) {
  return make_file_arbiter(folder.file("lock"), node(name), real_file_calls());
}

}  // namespace

TEST_CASE("whichever call of a claim fails or is the last, one node wins and both agree on which") {
  unsigned won_by_first = 0, won_by_second = 0, runs = 0;
  for (const Fault fault : kFaults) {
    for (unsigned at = 1; at <= 12; ++at) {
      TestFolder folder;
      CHECK(plain(folder, "b")->claim(1).verdict == ClaimVerdict::kWon);
      const auto calls = std::make_shared<FaultyCalls>(fault, at);
      const auto a = make_file_arbiter(folder.file("lock"), node("a"), calls);
      Claim first;
      try {
        first = a->claim(2);
      } catch (const Crash&) {
      }
      CHECK(first.verdict != ClaimVerdict::kLost);
      const Claim second = plain(folder, "b")->claim(2);
      const Claim again = plain(folder, "a")->claim(2);
      CHECK(second.verdict != ClaimVerdict::kUnreachable);
      CHECK(again.verdict != ClaimVerdict::kUnreachable);
      const bool a_has = again.verdict == ClaimVerdict::kWon;
      const bool b_has = second.verdict == ClaimVerdict::kWon;
      CHECK(a_has != b_has);
      if (first.verdict == ClaimVerdict::kWon) CHECK(a_has);
      CHECK(plain(folder, "c")->look()->holder == (a_has ? "a" : "b"));
      (a_has ? won_by_first : won_by_second) += 1;
      ++runs;
      if (at > calls->calls()) CHECK(first.verdict == ClaimVerdict::kWon);  // no fault was met
    }
  }
  // The faults came before the link and after it.
  CHECK(won_by_first > runs / 4);
  CHECK(won_by_second > runs / 8);
}

TEST_CASE("whichever call of a release fails or is the last, a repeated release succeeds") {
  for (const Fault fault : kFaults) {
    for (unsigned at = 1; at <= 12; ++at) {
      TestFolder folder;
      CHECK(plain(folder, "a")->claim(1).verdict == ClaimVerdict::kWon);
      const auto a = make_file_arbiter(folder.file("lock"), node("a"),
                                       std::make_shared<FaultyCalls>(fault, at));
      bool said_done = false;
      try {
        said_done = a->release(1).ok();
      } catch (const Crash&) {
      }
      if (said_done) CHECK(plain(folder, "b")->look()->released);
      CHECK(plain(folder, "a")->release(1).ok());
      CHECK(plain(folder, "b")->look()->released);
      CHECK(plain(folder, "b")->look()->holder == "a");
    }
  }
}

TEST_CASE("a claim that a later one overtook between look and link is lost") {
  // Storage in which somebody makes a later generation right before this node's link.
  class Overtaken final : public FileCalls {
   public:
    explicit Overtaken(std::function<void()> before_link) : before_link_(std::move(before_link)) {}
    int create(const std::string& path, int& fd) override { return real_->create(path, fd); }
    int write(int fd, const std::string& bytes) override { return real_->write(fd, bytes); }
    int sync(int fd) override { return real_->sync(fd); }
    void close(int fd) override { real_->close(fd); }
    int link(const std::string& from, const std::string& to) override {
      before_link_();
      return real_->link(from, to);
    }
    int unlink(const std::string& path) override { return real_->unlink(path); }
    int read(const std::string& path, size_t max, std::string& out) override {
      return real_->read(path, max, out);
    }
    int list(const std::string& folder, const std::string& prefix,
             std::vector<std::string>& out) override {
      return real_->list(folder, prefix, out);
    }
    int sync_folder(const std::string& folder) override { return real_->sync_folder(folder); }

   private:
    const std::shared_ptr<FileCalls> real_ = real_file_calls();
    std::function<void()> before_link_;
  };
  TestFolder folder;
  const auto overtake = [&] { CHECK(plain(folder, "b")->claim(3).verdict == ClaimVerdict::kWon); };
  const auto a =
      make_file_arbiter(folder.file("lock"), node("a"), std::make_shared<Overtaken>(overtake));
  const Claim claim = a->claim(2);
  CHECK(claim.verdict == ClaimVerdict::kLost);
  CHECK(claim.generation == 3);
  CHECK(claim.holder == "b");
}

TEST_CASE("200 claimants killed at random moments leave whole files, and none that won loses") {
  const unsigned seed = std::random_device{}();
  INFO("seed ", seed);
  std::mt19937 random(seed);
  TestFolder folder;
  unsigned told = 0;
  // How long children live follows from how long a claim takes here: some do three, some none.
  const auto begin = std::chrono::steady_clock::now();
  REQUIRE(plain(folder, "child")->claim(1).verdict == ClaimVerdict::kWon);
  const auto claim_us = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now() - begin);
  uint64_t generation = 1;
  for (int round = 0; round < 200; ++round) {
    ++generation;
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      // Claims on and on, and tells each win; the parent ends it.
      for (uint64_t g = generation;; ++g) {
        if (plain(folder, "child")->claim(g).verdict != ClaimVerdict::kWon) ::_exit(1);
        if (::write(ends[1], &g, sizeof g) != sizeof g) ::_exit(1);
      }
    }
    ::close(ends[1]);
    const auto life_max = static_cast<unsigned>(3 * claim_us.count()) + 1000;
    ::usleep(std::uniform_int_distribution<unsigned>(0, life_max)(random));
    ::kill(child, SIGKILL);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    uint64_t last_told = generation - 1, g = 0;
    while (::read(ends[0], &g, sizeof g) == sizeof g) {
      CHECK(g == last_told + 1);
      last_told = g;
      ++told;
    }
    ::close(ends[0]);
    if (last_told >= generation) {
      const Claim mine = plain(folder, "parent")->claim(last_told);
      CHECK(mine.verdict == ClaimVerdict::kLost);
      CHECK(mine.holder == "child");
    }
    // The one it died in is its own or free, never damaged.
    const Claim next = plain(folder, "parent")->claim(last_told + 1);
    CHECK(next.verdict != ClaimVerdict::kUnreachable);
    const auto state = plain(folder, "parent")->look();
    REQUIRE(state.ok());
    CHECK(state->generation == last_told + 1);
    generation = state->generation;
  }
  CHECK(told > 0);
}
