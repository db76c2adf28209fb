#include "ipt/stream_digest.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"

namespace us::ipt {
namespace {

// A leaf's contribution to its block: depends on the leaf's place, so that swapped leaves show.
uint64_t placed(uint64_t hash, uint64_t index) {
  uint64_t x = hash + (index + 1) * 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

std::vector<uint64_t> halved(const std::vector<uint64_t>& blocks) {
  std::vector<uint64_t> out((blocks.size() + 1) / 2);
  for (size_t i = 0; i < blocks.size(); ++i) out[i / 2] += blocks[i];
  return out;
}

Digest digest_of_words(const std::array<uint64_t, 4>& words) {
  return digest_of({reinterpret_cast<const uint8_t*>(words.data()), sizeof words});
}

}  // namespace

void StreamHasher::add_leaf(ByteSpan leaf) {
  const Digest hash = digest_of(leaf);
  chain_ = digest_of_words({chain_.low, chain_.high, hash.low, hash.high});
  size_t block = leaves_ >> leaves_per_block_log2_;
  if (block == kMaxBlocks) {
    blocks_ = halved(blocks_);
    ++leaves_per_block_log2_;
    block /= 2;
  }
  if (block == blocks_.size()) blocks_.push_back(0);
  blocks_[block] += placed(hash.low ^ hash.high, leaves_);
  ++leaves_;
}

StreamDigest StreamHasher::finish(uint64_t items) {
  StreamDigest out;
  out.items = items;
  out.items_per_leaf = items_per_leaf_;
  out.leaves_per_block_log2 = leaves_per_block_log2_;
  out.digest = digest_of_words({chain_.low, chain_.high, items, items_per_leaf_});
  out.blocks = std::move(blocks_);
  *this = StreamHasher(items_per_leaf_);
  return out;
}

std::vector<uint64_t> StreamDigest::blocks_at(unsigned log2) const {
  US_CHECK(log2 >= leaves_per_block_log2);
  std::vector<uint64_t> out = blocks;
  for (unsigned at = leaves_per_block_log2; at < log2; ++at) out = halved(out);
  return out;
}

std::optional<StreamDifference> first_difference(const StreamDigest& a, const StreamDigest& b) {
  US_CHECK(a.items_per_leaf == b.items_per_leaf);
  if (a.items == b.items && a.digest == b.digest) return std::nullopt;
  const unsigned log2 = std::max(a.leaves_per_block_log2, b.leaves_per_block_log2);
  const std::vector<uint64_t> left = a.blocks_at(log2);
  const std::vector<uint64_t> right = b.blocks_at(log2);
  const size_t common = std::min(left.size(), right.size());
  size_t block = 0;
  while (block < common && left[block] == right[block]) ++block;
  const uint64_t items_per_block = static_cast<uint64_t>(a.items_per_leaf) << log2;
  const uint64_t longest = std::max(a.items, b.items);
  // Equal sub-hashes under different digests (a collision, or a hostile peer): all we know is
  // "some".
  if (block == left.size() && block == right.size()) return StreamDifference{0, 0, longest};
  const uint64_t first = block * items_per_block;
  return StreamDifference{static_cast<uint32_t>(block), first,
                          std::min(first + items_per_block, std::max(longest, first))};
}

}  // namespace us::ipt
