// A running digest of one stream of 64-bit words or bits, with sub-hashes that say where two
// streams part. Items (branches, targets, events) are grouped into leaves of a fixed number; leaves
// into at most kMaxBlocks blocks, doubling in size as the stream grows. A block's sub-hash is the
// sum of its leaves' hashes, each mixed with its index, so a fine digest can be compared with a
// coarse one.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"

namespace us::ipt {

struct StreamDigest {
  uint64_t items = 0;
  uint32_t items_per_leaf = 1;
  uint8_t leaves_per_block_log2 = 0;
  Digest digest;                 // all leaves, in order, and the number of items
  std::vector<uint64_t> blocks;  // sub-hashes

  bool operator==(const StreamDigest&) const = default;
  // Sub-hashes at a coarser grouping. Precondition: log2 >= leaves_per_block_log2.
  std::vector<uint64_t> blocks_at(unsigned log2) const;
};

// Where two streams first differ: a block, and the items [first, end) it holds (end is bounded by
// the longer stream).
struct StreamDifference {
  uint32_t block = 0;
  uint64_t first_item = 0;
  uint64_t end_item = 0;
  bool operator==(const StreamDifference&) const = default;
};
// Precondition: same items_per_leaf.
std::optional<StreamDifference> first_difference(const StreamDigest& a, const StreamDigest& b);

class StreamHasher {
 public:
  static constexpr size_t kMaxBlocks = 16;

  explicit StreamHasher(uint32_t items_per_leaf) : items_per_leaf_(items_per_leaf) {}

  // One leaf; all but the last hold items_per_leaf items.
  void add_leaf(ByteSpan leaf);
  uint64_t leaves() const { return leaves_; }
  // The digest of what was added, `items` in all, and begins anew.
  StreamDigest finish(uint64_t items);

 private:
  uint32_t items_per_leaf_;
  uint8_t leaves_per_block_log2_ = 0;
  uint64_t leaves_ = 0;
  Digest chain_;
  std::vector<uint64_t> blocks_;
};

}  // namespace us::ipt
