#include "logchannel/channel/send_queue.h"

#include <algorithm>

#include "base/check.h"

namespace us::log {

void SendQueue::append(ByteSpan bytes) {
  size_ += bytes.size();
  while (!bytes.empty()) {
    if (chunks_.empty() || chunks_.back().size() == kChunkBytes) {
      if (spare_.empty()) {
        chunks_.emplace_back().reserve(kChunkBytes);
      } else {
        chunks_.push_back(std::move(spare_.back()));
        spare_.pop_back();
      }
    }
    Bytes& chunk = chunks_.back();
    const size_t n = std::min(bytes.size(), kChunkBytes - chunk.size());
    chunk.insert(chunk.end(), bytes.begin(), bytes.begin() + n);
    bytes = bytes.subspan(n);
  }
}

int SendQueue::front(iovec* pieces, int max) const {
  int count = 0;
  size_t skip = front_at_;
  for (auto chunk = chunks_.begin(); chunk != chunks_.end() && count < max; ++chunk) {
    pieces[count++] = {const_cast<uint8_t*>(chunk->data()) + skip, chunk->size() - skip};
    skip = 0;
  }
  return count;
}

void SendQueue::pop(size_t n) {
  US_CHECK(n <= size_, "{} bytes of {}", n, size_);
  size_ -= n;
  front_at_ += n;
  while (!chunks_.empty() && front_at_ >= chunks_.front().size()) {
    front_at_ -= chunks_.front().size();
    drop_front_chunk();
  }
}

void SendQueue::clear() { pop(size_); }

void SendQueue::drop_front_chunk() {
  if (spare_.size() < kSpareChunks) {
    chunks_.front().clear();
    spare_.push_back(std::move(chunks_.front()));
  }
  chunks_.pop_front();
}

}  // namespace us::log
