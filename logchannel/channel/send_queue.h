// Bytes that the kernel did not take yet, in order. Chunks of one size, used again: a queue that
// fills and empties all the time costs one copy of each byte, and no fresh memory.
#pragma once

#include <deque>
#include <sys/uio.h>
#include <vector>

#include "base/bytes.h"

namespace us::log {

class SendQueue {
 public:
  static constexpr size_t kChunkBytes = 256 * 1024;
  static constexpr size_t kSpareChunks = 16;

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  void append(ByteSpan bytes);
  // The first bytes, as at most `max` pieces; returns how many. Valid until the next change.
  int front(iovec* pieces, int max) const;
  // Precondition: n <= size().
  void pop(size_t n);
  void clear();

 private:
  void drop_front_chunk();

  std::deque<Bytes> chunks_;
  std::vector<Bytes> spare_;
  size_t front_at_ = 0;  // bytes of the first chunk that are gone
  size_t size_ = 0;
};

}  // namespace us::log
