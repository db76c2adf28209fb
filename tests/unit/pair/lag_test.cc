#include <doctest/doctest.h>

#include "replay-engine/pair/lag_control.h"

namespace us::replay {
namespace {

using std::chrono::milliseconds;
using Now = std::chrono::nanoseconds;

// `behind` of lag for `span` of time, in steps of 10 ms.
void live_with(LagControl& lag, Now& now, Now behind, Now span) {
  const Now end = now + span;
  for (; now < end; now += milliseconds(10)) {
    const auto position = static_cast<uint64_t>(now.count());
    lag.appended(LogPosition(position), now);
    lag.replayed(LogPosition(position - static_cast<uint64_t>(behind.count())));
    lag.tick(now);
  }
}

TEST_CASE("a secondary that keeps up costs the primary nothing") {
  LagControl lag;
  Now now = std::chrono::seconds(100);
  live_with(lag, now, milliseconds(40), std::chrono::seconds(20));
  CHECK(lag.slowdown() == 0);
  CHECK(lag.interval() > milliseconds(25));
  CHECK(lag.interval() < milliseconds(55));
}

TEST_CASE("a lag above target slows the primary a few percent at a time, and lets go afterwards") {
  LagControl lag;
  Now now = std::chrono::seconds(100);
  live_with(lag, now, milliseconds(300), milliseconds(500));
  const double soon = lag.slowdown();
  CHECK(soon > 0);
  CHECK(soon < 0.25);
  live_with(lag, now, milliseconds(300), std::chrono::seconds(30));
  CHECK(lag.slowdown() == doctest::Approx(0.9));
  live_with(lag, now, milliseconds(5), std::chrono::seconds(30));
  CHECK(lag.slowdown() == 0);
}

TEST_CASE("the round trip is taken off the vLockstep interval") {
  LagControl lag;
  lag.round_trip(milliseconds(250));
  Now now = std::chrono::seconds(100);
  live_with(lag, now, milliseconds(270), std::chrono::seconds(20));
  CHECK(lag.interval() < milliseconds(40));
  CHECK(lag.slowdown() == 0);
}

TEST_CASE("a secondary that stands still for an hour is seen as an hour behind in bounded memory") {
  LagControl lag;
  Now now = std::chrono::seconds(100);
  const Now begin = now;
  for (uint64_t i = 1; i <= 3'600'000; ++i, now += milliseconds(1))
    lag.appended(LogPosition(i), now);
  CHECK(lag.lag(now) == now - begin);
  lag.replayed(LogPosition(3'600'000));
  CHECK(lag.lag(now) == Now(0));
}

}  // namespace
}  // namespace us::replay
