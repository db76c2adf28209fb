#include "calib/experiment.h"

namespace us::calib {
namespace {

// Taken and not-taken apart: a code that counts taken branches only is exact on loops of those.
constexpr Shape kShapes[] = {Shape::kTaken, Shape::kNotTaken, Shape::kMixed};
constexpr uint64_t kChunksEach = 10;

// One host interrupt a 20 microseconds or so at the least.
std::string probe(Shape shape, Disturbance disturbance) {
  return std::string(name_of(shape)) +
         (disturbance == Disturbance::kInterrupts ? "+interrupts" : "");
}

uint64_t chunks(const Bench&) { return std::size(kShapes) * 2 * kChunksEach; }

Status run(Bench& bench, uint64_t chunk, uint64_t, Measurements& measured) {
  const uint64_t which = chunk / kChunksEach;
  const Shape shape = kShapes[which / 2];
  const Disturbance disturbance = which % 2 == 0 ? Disturbance::kNone : Disturbance::kInterrupts;
  CountTally tally;
  for (uint64_t i = 0; i < bench.amounts.pieces / kChunksEach; ++i) {
    const auto piece = bench.host.count(shape, bench.amounts.piece_branches, disturbance);
    if (!piece.ok()) return piece.error();
    tally.add(*piece);
  }
  measured.counts[probe(shape, disturbance)].add(tally);
  return Done{};
}

}  // namespace

const Experiment kExactness{
    "exactness",
    "the clock counts every conditional branch once, taken or not, and nothing else, however often "
    "the host is interrupted",
    chunks, run};

}  // namespace us::calib
