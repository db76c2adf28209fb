#include "tests/unit/arbiter/race.h"

#include <atomic>
#include <barrier>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "base/check.h"

namespace us::replay::testing {
namespace {

// Unreachable is no answer: a caller asks again.
ClaimVerdict insist(Arbiter& arbiter, uint64_t generation) {
  for (int i = 0; i < 10; ++i) {
    const ClaimVerdict verdict = arbiter.claim(generation).verdict;
    if (verdict != ClaimVerdict::kUnreachable) return verdict;
  }
  return ClaimVerdict::kUnreachable;
}

void note(RaceResult& result, unsigned round, int who, ClaimVerdict verdict) {
  result.rounds[round].won += verdict == ClaimVerdict::kWon;
  result.rounds[round].lost += verdict == ClaimVerdict::kLost;
  result.wins[who] += verdict == ClaimVerdict::kWon;
}

const char* name_of(int who) { return who == 0 ? "a" : "b"; }

// A claimant that claims the next generation for each byte it is sent, and answers with a byte.
struct Racer {
  int go[2], verdict[2];
  pid_t pid;
};

void claim_on_demand(const Racer& me, Arbiter& arbiter) {
  for (uint64_t generation = 1;; ++generation) {
    char byte = 0;
    if (::read(me.go[0], &byte, 1) != 1) ::_exit(0);
    byte = static_cast<char>(insist(arbiter, generation));
    if (::write(me.verdict[1], &byte, 1) != 1) ::_exit(1);
  }
}

}  // namespace

RaceResult race_threads(unsigned rounds, const MakeArbiter& make) {
  std::vector<ClaimVerdict> verdicts[2] = {std::vector<ClaimVerdict>(rounds),
                                           std::vector<ClaimVerdict>(rounds)};
  std::barrier start(2);
  const auto racer = [&](int who) {
    const auto arbiter = make(name_of(who));
    for (unsigned i = 0; i < rounds; ++i) {
      start.arrive_and_wait();
      verdicts[who][i] = insist(*arbiter, i + 1);
    }
  };
  std::thread other(racer, 1);
  racer(0);
  other.join();
  RaceResult result{.rounds = std::vector<RaceResult::Round>(rounds)};
  for (unsigned i = 0; i < rounds; ++i) {
    for (int who = 0; who < 2; ++who) note(result, i, who, verdicts[who][i]);
  }
  return result;
}

RaceResult race_processes(unsigned rounds, const MakeArbiter& make) {
  Racer racers[2];
  for (int who = 0; who < 2; ++who) {
    Racer& r = racers[who];
    US_CHECK(::pipe(r.go) == 0 && ::pipe(r.verdict) == 0);
    r.pid = ::fork();
    US_CHECK(r.pid >= 0);
    if (r.pid == 0) {
      // Of the pipes it must not keep a writing end of its own, nor of the other's.
      for (int i = 0; i <= who; ++i) ::close(racers[i].go[1]);
      claim_on_demand(r, *make(name_of(who)));
    }
  }
  RaceResult result{.rounds = std::vector<RaceResult::Round>(rounds)};
  for (unsigned i = 0; i < rounds; ++i) {
    for (const Racer& r : racers) US_CHECK(::write(r.go[1], "g", 1) == 1);
    for (int who = 0; who < 2; ++who) {
      char byte = 0;
      US_CHECK(::read(racers[who].verdict[0], &byte, 1) == 1);
      note(result, i, who, static_cast<ClaimVerdict>(byte));
    }
  }
  for (const Racer& r : racers) {
    ::close(r.go[1]);
    int status = -1;
    US_CHECK(::waitpid(r.pid, &status, 0) == r.pid && status == 0);
    for (const int fd : {r.go[0], r.verdict[0], r.verdict[1]}) ::close(fd);
  }
  return result;
}

}  // namespace us::replay::testing
