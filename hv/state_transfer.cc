#include "hv/state_transfer.h"

#include <algorithm>

#include "hv/snapshot.h"

namespace us::hv {

StateTransfer::StateTransfer(Machine& machine)
    : machine_(machine), sent_(machine.memory().page_count()) {
  uint8_t* flags = machine.memory().page_flags();
  for (uint64_t i = 0; i < machine.memory().page_count(); ++i)
    flags[i] |= GuestMemory::kDirtyForTransfer;
  begin_round();
}

void StateTransfer::begin_round() {
  machine_.vcpu().collect_dirty_pages();
  const uint8_t* flags = machine_.memory().page_flags();
  next_ = 0;
  left_ = static_cast<uint64_t>(
      std::count_if(flags, flags + machine_.memory().page_count(),
                    [](uint8_t f) { return (f & GuestMemory::kDirtyForTransfer) != 0; }));
  ++rounds_;
}

std::vector<uint64_t> StateTransfer::take(size_t most) {
  machine_.vcpu().collect_dirty_pages();
  GuestMemory& memory = machine_.memory();
  uint8_t* flags = memory.page_flags();
  std::vector<uint64_t> pages;
  for (; next_ < memory.page_count() && pages.size() < most; ++next_) {
    if ((flags[next_] & GuestMemory::kDirtyForTransfer) == 0) continue;
    flags[next_] &= static_cast<uint8_t>(~GuestMemory::kDirtyForTransfer);
    if (left_ > 0) --left_;
    if (!sent_[next_] && page_is_zero(memory.page_host(next_))) continue;
    sent_[next_] = true;
    pages.push_back(next_);
  }
  // The guest's next store to a taken page must mark it again.
  machine_.vcpu().forget_dirty_pages();
  taken_ += pages.size();
  return pages;
}

Bytes StateTransfer::next(size_t pages_max) {
  Bytes out;
  if (!begun_) out = snapshot_head(machine_);
  begun_ = true;
  const Bytes pages = snapshot_pages(machine_.memory(), take(pages_max));
  out.insert(out.end(), pages.begin(), pages.end());
  if (next_ == machine_.memory().page_count()) begin_round();
  return out;
}

Bytes StateTransfer::finish() {
  Bytes out;
  if (!begun_) out = snapshot_head(machine_);
  begun_ = true;
  next_ = 0;
  const Bytes pages = snapshot_pages(machine_.memory(), take(machine_.memory().page_count()));
  out.insert(out.end(), pages.begin(), pages.end());
  const Bytes tail = snapshot_tail(machine_);
  out.insert(out.end(), tail.begin(), tail.end());
  return out;
}

}  // namespace us::hv
