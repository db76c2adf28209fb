// The long form: `simulation --seeds N [--first SEED] [--planted NAME]`. Prints every violation
// with its seed; exit 1 when there was one.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "tests/simulation/simulation.h"

int main(int argc, char** argv) {
  using namespace us::sim;
  CLI::App app{"simulates the fault-tolerant pair under faults"};
  uint64_t seeds = 1000, first = 1;
  std::string planted_name = "nothing";
  app.add_option("--seeds", seeds, "how many");
  app.add_option("--first", first, "the first seed");
  app.add_option("--planted", planted_name,
                 "nothing, ack-before-keep, release-before-ack, no-arbiter");
  bool trace = false;
  app.add_flag("--trace", trace, "tell what happens");
  CLI11_PARSE(app, argc, argv);
  Planted planted = Planted::kNothing;
  if (planted_name == "ack-before-keep") planted = Planted::kAckBeforeKeep;
  if (planted_name == "release-before-ack") planted = Planted::kReleaseBeforeAck;
  if (planted_name == "no-arbiter") planted = Planted::kGoLiveWithoutArbiter;
  Outcome sum;
  uint64_t violations = 0, lost = 0;
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    const Outcome one = simulate(seed, planted, trace);
    sum.failovers += one.failovers;
    sum.sessions += one.sessions;
    sum.outputs += one.outputs;
    sum.fenced += one.fenced;
    sum.records += one.records;
    lost += one.vm_lost;
    if ((seed - first + 1) % 10'000 == 0)
      fmt::print(stderr, "{} of {} seeds, {} violations\n", seed - first + 1, seeds, violations);
    if (one.violation.empty()) continue;
    ++violations;
    if (violations <= 10) fmt::print("seed {}: {}\n", seed, one.violation);
  }
  fmt::print(
      "{} seeds from {}: {} violations; {} failovers, {} sides fenced, {} sessions, {} "
      "records, {} outputs; {} VMs lost while nobody could take over\n",
      seeds, first, violations, sum.failovers, sum.fenced, sum.sessions, sum.records, sum.outputs,
      lost);
  return violations == 0 ? 0 : 1;
}
