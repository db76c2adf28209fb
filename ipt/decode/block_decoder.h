// The full decoding of a trace: which code it says was executed. libipt follows the guest's code,
// which a callback serves from the guest's memory; so it can explain a trace, and is too slow and
// too dependent to check one while the guest runs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/bytes.h"

namespace us::ipt {

// Reads guest memory by linear address as it was when the trace was taken: self-modifying code
// needs the old bytes. `cr3`: the address space, empty where the trace has not said yet. Returns
// how many bytes could be read; 0: none.
using ReadCode =
    std::function<size_t(std::optional<uint64_t> cr3, uint64_t ip, std::span<uint8_t> out)>;

struct DecodeOptions {
  // The processor traced, for the errata of its kind that libipt knows (pt_cpu_errata); family 0:
  // none, as for the software processor.
  uint16_t family = 0;
  uint8_t model = 0, stepping = 0;
  uint64_t blocks_max = 100'000'000;  // a trace may be hostile
};

// Instructions executed one after another without anything the trace had to say.
struct CodeBlock {
  uint64_t ip = 0;      // of the first
  uint64_t end_ip = 0;  // of the last
  uint32_t instructions = 0;
  bool resumed = false;  // tracing had paused, or trace was lost, before it
};

class BlockDecoder {
 public:
  // `trace` outlives the decoder. It begins at the first PSB.
  BlockDecoder(ByteSpan trace, ReadCode read, const DecodeOptions& options = {});
  ~BlockDecoder();
  BlockDecoder(const BlockDecoder&) = delete;
  BlockDecoder& operator=(const BlockDecoder&) = delete;

  // The next block; nothing at the end of the trace or at an error.
  std::optional<CodeBlock> next();

  // Why it ended, where not at the trace's end; with the offset in the trace.
  const std::optional<std::string>& error() const { return error_; }
  uint64_t offset() const;
  uint64_t overflows() const { return overflows_; }

 private:
  struct Native;
  bool sync();
  bool take_events();
  bool fail(const char* what, int code);

  std::unique_ptr<Native> native_;
  std::optional<std::string> error_;
  uint64_t blocks_left_;
  uint64_t overflows_ = 0;
  int status_ = 0;
  bool synced_ = false;
  bool resumed_ = true;
};

}  // namespace us::ipt
