// A running machine's state in pieces, so that the guest stands still only for the last of them:
// its pages are taken while it runs, those it writes again are taken again, and when few are left
// the rest goes with the processor and the devices (pre-copy). The pieces make a snapshot stream
// (hv/snapshot.h).
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "hv/machine.h"

namespace us::hv {

class StateTransfer {
 public:
  // Nothing is taken yet. The machine outlives it; one transfer at a time.
  explicit StateTransfer(Machine& machine);

  // The stream's next bytes: at most `pages_max` pages. Precondition: no finish() yet.
  Bytes next(size_t pages_max);
  // Everything that is left. The machine stands where the stream's copy will begin.
  Bytes finish();

  // Pages that would go with finish(), at least: some more may be dirty again by then.
  uint64_t pages_left() const { return left_; }
  // Times that every page was looked at: what is dirty now was written during the last one.
  unsigned rounds() const { return rounds_; }
  uint64_t pages_taken() const { return taken_; }

 private:
  // Up to `most` pages that must go, their marks cleared.
  std::vector<uint64_t> take(size_t most);
  void begin_round();

  Machine& machine_;
  bool begun_ = false;
  uint64_t next_ = 0;  // page that the round looks at next
  uint64_t left_ = 0;
  uint64_t taken_ = 0;
  unsigned rounds_ = 0;
  std::vector<bool> sent_;  // pages the other side holds; the others are zero there
};

}  // namespace us::hv
