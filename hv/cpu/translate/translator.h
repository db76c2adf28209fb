// Finds out which blocks are hot, has them translated, and takes translations back when their code
// changes. docs/translator.md says how translated code keeps everything as the interpreter has it.
#pragma once

#include <atomic>
#include <string>
#include <unordered_map>
#include <vector>

#include "hv/cpu/code_cache.h"
#include "hv/cpu/translate/code_memory.h"
#include "hv/cpu/translate/unit.h"

namespace us::hv {

class Translator final : public BlockObserver {
 public:
  // Watches the code cache of `cpu` from now on; ends before it. Blocks are interpreted `hot` times
  // before they are translated.
  Translator(Cpu& cpu, uint32_t hot);
  ~Translator() override;

  struct Counters {
    uint64_t units = 0, blocks = 0, withdrawn = 0, refused = 0, clears = 0, code_bytes = 0;
  };
  const Counters& counters() const { return counters_; }
  std::string summary() const;  // the counters as one line
  // There is no room for more: drop the code cache when no block is running.
  bool full() const { return full_; }

  // SoftVcpu::kick_after(); `kicked` is what the run loop looks at.
  void kick_after(uint32_t blocks, std::atomic<bool>& kicked) { unit_.kick_after(blocks, kicked); }

  void inserted(Block& block) override;
  void dropping(Block& block) override;
  void cleared() override;

  void translate(Block& block);

 private:
  struct Page {
    std::vector<FinishedUnit> units;
    unsigned withdrawals = 0;
  };
  void withdraw(Page& page);

  Cpu& cpu_;
  CodeMemory memory_;
  Unit unit_;
  std::unordered_map<uint64_t, Page> pages_;  // by guest physical page
  bool full_ = false;
  Counters counters_;
};

}  // namespace us::hv
