// The second witness: the guest's Intel PT trace, turned into a digest at every epoch's end as it
// comes. The recording side puts it into the log, the replaying side compares. See
// ipt/epoch_digest.h for what a digest says.
//
// Tracing is no guest state. A witness starts where its side starts (a boot, a loaded state), and
// the first epoch of both sides is the same if they started at the same point; where not, that
// epoch is incomparable and the state digests speak alone, as they do where trace was lost.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "hv/machine.h"
#include "ipt/epoch_digest.h"
#include "ipt/normal_form.h"
#include "ipt/packet_writer.h"

namespace us::replay {

struct WitnessOptions {
  bool check = false;  // make and compare digests
  // Gets the raw bytes too, in order; empty: nobody.
  std::function<void(ByteSpan)> raw = {};
  // Of the modelled processor. Trace that an epoch may have, more is lost (0: no limit); and the
  // seed of everything two processors may do differently (0: nothing of it).
  uint64_t buffer_bytes = 0;
  uint64_t variation_seed = 0;
  bool wanted() const { return check || raw; }
};

class Witness final : private ipt::TraceSink {
 public:
  // Traces `machine`, which outlives it, from its current point on. Error: IPT-001 its vCPU cannot
  // be traced.
  static Result<std::unique_ptr<Witness>> start(hv::Machine& machine, WitnessOptions options);
  ~Witness() override;

  bool checks() const { return form_.has_value(); }
  // Ends an epoch here and begins the next. Precondition: checks().
  ipt::EpochDigest cut(uint64_t epoch);
  // Ends tracing; the raw bytes are complete afterwards.
  void stop();

  uint64_t bytes() const { return bytes_; }

 private:
  Witness(hv::Machine& machine, WitnessOptions options)
      : machine_(machine), options_(std::move(options)) {}
  bool accept(ByteSpan bytes) override;
  void lost(uint32_t aux_flags) override;
  void stands(uint64_t ip) override;
  void delivered(uint64_t from, uint64_t to) override;

  hv::Machine& machine_;
  WitnessOptions options_;
  std::optional<ipt::NormalForm> form_;
  ipt::EpochPosition start_;
  uint64_t bytes_ = 0;
  uint64_t epoch_bytes_ = 0;
};

// What is said of a side of a pair whose guest is not traced, for this error of start().
std::string state_digests_only(const UserError& error);

// What an observer does with digests, and how often it came out how.
struct WitnessCounters {
  uint64_t epochs = 0;              // digests made (recording), or compared and equal (replaying)
  uint64_t unknown = 0;             // trace lost, or not comparable: nothing said
  uint64_t counter_mismatches = 0;  // the trace's branches are not the branch counter's
};

}  // namespace us::replay
