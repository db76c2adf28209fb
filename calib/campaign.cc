#include "calib/campaign.h"

#include "base/check.h"
#include "pmu/random.h"

namespace us::calib {

Campaign::Campaign(Bench bench, uint64_t seed)
    : bench_(std::move(bench)), seed_(seed), experiments_(experiments()) {
  for (const Experiment* experiment : experiments_) total_ += experiment->chunks(bench_);
}

void Campaign::resume(uint64_t done, Measurements measured) {
  US_CHECK(done <= total_, "{} chunks done of {}", done, total_);
  done_ = done;
  measured_ = std::move(measured);
}

Campaign::Place Campaign::place(uint64_t index) const {
  for (size_t i = 0; i < experiments_.size(); ++i) {
    const uint64_t chunks = experiments_[i]->chunks(bench_);
    if (index < chunks) {
      // One number for each chunk of each experiment of each seed.
      pmu::Random mixed(seed_ ^ (i + 1) << 48);
      pmu::Random chunk_seed(mixed.next() + index);
      return {experiments_[i], index, chunk_seed.next()};
    }
    index -= chunks;
  }
  US_CHECK(false, "no chunk {}", index);
}

const Experiment& Campaign::current() const {
  return *place(finished() ? total_ - 1 : done_).experiment;
}

Status Campaign::next() {
  US_CHECK(!finished());
  look_at_tsc();
  const Place now = place(done_);
  bench_.host.reseed(now.seed);
  // Into a copy, so that a chunk that failed half-way leaves nothing behind.
  Measurements measured = measured_;
  if (Status s = now.experiment->run(bench_, now.chunk, now.seed, measured); !s.ok()) return s;
  measured_ = std::move(measured);
  ++done_;
  if (finished()) look_at_tsc();
  return Done{};
}

// Between chunks, so that the samples lie over all of the campaign's time.
void Campaign::look_at_tsc() {
  const auto sample = bench_.host.tsc();
  if (!sample) return;
  if (!in_stretch_) measured_.tsc.emplace_back();
  in_stretch_ = true;
  measured_.tsc.back().push_back(*sample);
}

}  // namespace us::calib
