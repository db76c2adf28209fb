#include "calib/measurements.h"

#include <algorithm>

namespace us::calib {

double CountTally::over_per_million() const {
  return branches == 0 ? 0 : static_cast<double>(over) * 1e6 / static_cast<double>(branches);
}

void CountTally::add(const Counted& piece) {
  const uint64_t truth = piece.retired.conditional;
  ++pieces;
  branches += truth;
  taken += piece.retired.taken;
  counted += piece.counted;
  interrupts += piece.interrupts;
  if (piece.counted > truth) {
    ++pieces_over;
    over += piece.counted - truth;
    over_max = std::max(over_max, piece.counted - truth);
  } else if (piece.counted < truth) {
    ++pieces_under;
    under += truth - piece.counted;
  }
}

void CountTally::add(const CountTally& o) {
  pieces += o.pieces;
  branches += o.branches;
  taken += o.taken;
  counted += o.counted;
  interrupts += o.interrupts;
  pieces_over += o.pieces_over;
  pieces_under += o.pieces_under;
  over += o.over;
  under += o.under;
  over_max = std::max(over_max, o.over_max);
}

void AlarmTally::add(uint64_t period, const AlarmRun& run) {
  ++armed;
  if (!run.came_after) {
    ++missing;
    return;
  }
  if (*run.came_after < period) ++early;
  late.add(*run.came_after < period ? 0 : *run.came_after - period);
}

void AlarmTally::add(const AlarmTally& other) {
  armed += other.armed;
  missing += other.missing;
  early += other.early;
  late.add(other.late);
}

void LandingTally::add(const LandingTally& other) {
  landings += other.landings;
  alarms += other.alarms;
  stops += other.stops;
  overshoots += other.overshoots;
}

Histogram Measurements::skid_of_all() const {
  Histogram all;
  for (const auto& [shape, tally] : skid) all.add(tally.late);
  return all;
}

uint64_t Measurements::alarms_missing() const {
  uint64_t missing = sparse.missing;
  for (const auto& [shape, tally] : skid) missing += tally.missing;
  return missing;
}

}  // namespace us::calib
