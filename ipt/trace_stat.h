// Counts of a raw Intel PT stream, as `understudy trace stat` prints them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "ipt/epoch_digest.h"

namespace us::ipt {

struct TraceStat {
  uint64_t bytes = 0;
  uint64_t psb = 0;
  uint64_t tnt_bits = 0;  // conditional branches, wherever they stand
  uint64_t tip = 0;       // TIP alone, those after a FUP included; not TIP.PGE or TIP.PGD
  uint64_t tip_pge = 0;
  uint64_t tip_pgd = 0;
  uint64_t fup = 0;  // those of PSB+ included
  uint64_t pip = 0;
  uint64_t ovf = 0;
  uint64_t mode = 0;  // MODE.Exec and MODE.TSX
  uint64_t pad = 0;
  uint64_t other = 0;          // every other packet
  uint64_t errors = 0;         // places where no packet was found and the next PSB was searched
  uint64_t skipped_bytes = 0;  // in no packet
  uint64_t cut_bytes = 0;      // of an incomplete packet at the end
  EpochDigest digest;          // of the normal form of the whole stream, as one epoch

  nlohmann::json to_json() const;
  // Name and value, one line each.
  std::string text() const;
};

// Counts a stream that comes in pieces.
class TraceStatScanner {
 public:
  TraceStatScanner();
  ~TraceStatScanner();
  TraceStatScanner(TraceStatScanner&&) noexcept;
  TraceStatScanner& operator=(TraceStatScanner&&) noexcept;

  void feed(ByteSpan bytes);
  // The counts of all that was fed. Call once.
  TraceStat finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

TraceStat trace_stat(ByteSpan bytes);
// Reads a file (or a pipe) piece by piece. Errors: TRACE-001 cannot be opened, TRACE-002 cannot be
// read.
Result<TraceStat> trace_stat_of_file(const std::filesystem::path& path);

}  // namespace us::ipt
