#include "replay-engine/epoch_digests.h"

#include "replay-engine/record_convert.h"

namespace us::replay {

EpochDigests epoch_digests(hv::Machine& machine, bool with_memory) {
  constexpr uint64_t kKept = (uint64_t{1} << (8 * kDigestWidth)) - 1;
  EpochDigests d{.registers = machine.register_digest().low & kKept,
                 .devices = machine.device_digest().low & kKept,
                 .memory = std::nullopt};
  if (with_memory) d.memory = machine.memory_digest().low & kKept;
  return d;
}

}  // namespace us::replay
