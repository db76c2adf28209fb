// A campaign: all experiments on one host, chunk by chunk.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "calib/experiment.h"

namespace us::calib {

class Campaign {
 public:
  // The bench's host outlives it.
  Campaign(Bench bench, uint64_t seed);

  // Goes on after the first `done` chunks, which found `measured`.
  void resume(uint64_t done, Measurements measured);
  // Does the next chunk. Errors: those of the host; the chunk may be tried again.
  Status next();

  uint64_t done() const { return done_; }
  uint64_t total() const { return total_; }
  bool finished() const { return done_ == total_; }
  // The experiment under way; finished: the last one.
  const Experiment& current() const;
  const Measurements& measured() const { return measured_; }
  const Bench& bench() const { return bench_; }

 private:
  struct Place {
    const Experiment* experiment;
    uint64_t chunk;
    uint64_t seed;
  };
  Place place(uint64_t index) const;

  void look_at_tsc();

  Bench bench_;
  uint64_t seed_;
  std::vector<const Experiment*> experiments_;
  uint64_t total_ = 0;
  uint64_t done_ = 0;
  Measurements measured_;
  bool in_stretch_ = false;  // of the TSC's samples, which another process began
};

}  // namespace us::calib
