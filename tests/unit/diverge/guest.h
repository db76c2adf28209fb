// The payload of payload.S, recorded by a script instead of a live world, so that every recording
// of it is the same.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "logchannel/record.h"
#include "replay-engine/diverge/diverge.h"
#include "replay-engine/diverge/epoch_pass.h"

extern "C" const uint8_t diverge_payload_begin[], diverge_payload_end[], table_load[],
    table_branch[], tsc_read[], tsc_branch[], cpuid_read[], cpuid_branch[], key_branch[],
    timer_handler[];

namespace us::replay::test {

constexpr uint64_t kEntry = 0x10'0000;
constexpr uint64_t kTable = 0x34'0000;
constexpr uint64_t kRounds = 3000;  // of about 41 branches
constexpr uint64_t kAnchorBranches = 1000, kAnchorsAnEpoch = 10;

// Where a label of the payload is in the guest.
inline uint64_t address_of(const uint8_t* label) {
  return kEntry + static_cast<uint64_t>(label - diverge_payload_begin);
}

struct RecordOptions {
  std::vector<Fault> plan{};  // the machine recorded is a broken one
  bool traced = false;        // with digests of its trace
  uint64_t trace_buffer = 0;  // bytes an epoch; more is lost
  uint64_t variation_seed = 0;
};
// An anchor every kAnchorBranches, an epoch every kAnchorsAnEpoch of them, a key now and then.
Bytes record(const RecordOptions& options = {});

// The log with its records changed; damage that every checksum agrees with.
Bytes edited(const Bytes& log, const std::function<void(std::vector<log::Record>&)>& edit);

Side side_of(const Bytes& log, std::vector<Fault> plan = {}, const char* name = "side");

// The epoch that holds a branch: as many as end before it, and one.
uint64_t epoch_of(const Bytes& log, uint64_t branch);

// Both executions stepped instruction by instruction from the start: where their paths part first.
// What the strides must find.
struct TrueFork {
  hv::ExecutionPoint at;
  uint64_t to_a = 0, to_b = 0;
};
std::optional<TrueFork> true_fork(const Side& a, const Side& b, uint64_t from_branch);

}  // namespace us::replay::test
