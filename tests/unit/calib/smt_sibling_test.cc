// Which processor shares a core, and keeping it busy.
#include "calib/smt_sibling.h"

#include <doctest/doctest.h>

namespace us::calib {
namespace {

cpu_set_t set_of(std::initializer_list<int> cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(static_cast<size_t>(cpu), &set);
  return set;
}

}  // namespace

TEST_CASE("the other thread of a core is found in the kernel's list, however that is written") {
  const cpu_set_t all = set_of({0, 1, 2, 3, 64});
  CHECK(other_of("0,64", 0, all).value() == 64);
  CHECK(other_of("0,64\n", 64, all).value() == 0);
  CHECK(other_of("2-3", 2, all).value() == 3);
  CHECK(other_of("2-3", 3, all).value() == 2);
  CHECK(other_of("0-1,64", 1, all).value() == 0);
}

TEST_CASE("a core of one thread, one that may not be used, and no list each say why") {
  const cpu_set_t few = set_of({0, 1});
  CHECK(other_of("0", 0, few).error() == "processor 0 has its core to itself");
  CHECK(other_of("0,64", 0, few).error() ==
        "what shares processor 0's core may not be used by this process");
  for (const char* text : {"", "x", "0,", "3-2", "-1", "0 64", "99999999999"})
    CHECK(other_of(text, 0, few).error() ==
          "the kernel does not say what shares processor 0's core");
}

TEST_CASE("a busy thread works on the processor it is given until it is destroyed") {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  REQUIRE(::sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  int cpu = 0;
  while (!CPU_ISSET(static_cast<size_t>(cpu), &allowed)) ++cpu;
  auto busy = BusyThread::start(cpu);
  REQUIRE(busy != nullptr);
  CHECK(busy->cpu() == cpu);
  while (busy->rounds() < 3) std::this_thread::yield();
  busy.reset();
  CHECK(BusyThread::start(CPU_SETSIZE - 1) == nullptr);
}

}  // namespace us::calib
