// The trace of one vCPU's guest, from the hardware by perf to a TraceSink, in stretches: epochs. On
// the vCPU's thread but for the copier's thread inside.
//
// Whatever is lost makes the stretch it was lost in unknown, and no other: at its end the event is
// opened anew, and so begins with a PSB and with nothing left of before.
#pragma once

#include <memory>
#include <optional>

#include "ipt/capture/aux_event.h"
#include "ipt/capture/copier.h"
#include "ipt/capture/guest_filter.h"
#include "ipt/epoch_digest.h"
#include "ipt/packet_writer.h"

namespace us::ipt {

struct CaptureOptions {
  AuxOptions aux;
  bool copier = true;  // without it the buffer is emptied at cuts only
  size_t queue_bytes = size_t{256} << 20;
};

class Capture {
 public:
  struct Statistics {
    uint64_t bytes = 0;  // of the hardware; with the host's part, if it is in the trace
    uint64_t cuts = 0, pauses = 0;
    uint64_t lossy_cuts = 0;
    uint64_t reopened = 0;
    uint64_t lost_records = 0;
  };

  // Traces from now on; the guest stands at `ip` (linear where the PMU's addresses are). `host` and
  // `sink` outlive it. Errors: those of AuxEvent::open.
  static Result<std::unique_ptr<Capture>> open(TraceHost& host, const TracePmu& pmu,
                                               const CaptureOptions& options, TraceSink& sink,
                                               uint64_t ip);
  ~Capture();

  // Ends a stretch with the guest at `ip`, and begins the next. The sink has everything of the old
  // one then, and what was lost of it.
  void cut(uint64_t ip);
  // An event was delivered to the guest by software.
  void delivered(uint64_t from, uint64_t to);
  // Hands over what the copier has, if that is much. For now and then, while the guest is out.
  void pump();
  // The last stretch, as cut(); nothing is traced afterwards.
  void stop(uint64_t ip);

  TraceSetup setup() const { return {.linear_addresses = pmu_.linear_addresses}; }
  const Statistics& statistics() const { return statistics_; }

 private:
  Capture(TraceHost& host, const TracePmu& pmu, const CaptureOptions& options, TraceSink& sink);
  Status start();
  void hand_over(ByteSpan bytes);
  void drain();
  void pause();
  void finish_stretch(uint64_t ip);
  void begin_stretch(uint64_t ip);

  TraceHost& host_;
  TracePmu pmu_;
  CaptureOptions options_;
  TraceSink& sink_;
  std::unique_ptr<AuxEvent> event_;  // null: it could not be opened again
  std::optional<Copier> copier_;
  GuestFilter filter_;
  Bytes spare_;
  uint32_t loss_ = 0;  // of the stretch at hand
  bool refused_ = false;
  Statistics statistics_;
};

}  // namespace us::ipt
