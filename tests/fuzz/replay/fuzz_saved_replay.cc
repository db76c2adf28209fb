// Any bytes as a saved replay: a bookmark that is read is written as the same bytes, and a machine
// that is restored behind one is saved and restored again to the same state. Checksums are made
// right first, and memory small.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/check.h"
#include "replay-engine/bookmark.h"
#include "tests/support/loadable_snapshot.h"

namespace us::replay {
namespace {

constexpr size_t kBookmarkBytes = 116;  // its last four are the checksum

class NoOutputs final : public hv::OutputSink {
 public:
  void frame(uint8_t, Bytes) override {}
  void disk(hv::DiskRequest) override {}
  void console(uint8_t, ByteSpan) override {}
};

hv::SnapshotSource source_of(ByteSpan bytes) {
  return [bytes](std::span<uint8_t> out) mutable {
    if (out.size() > bytes.size()) return false;
    std::copy_n(bytes.begin(), out.size(), out.begin());
    bytes = bytes.subspan(out.size());
    return true;
  };
}

void make_right(Bytes& bytes) {
  if (bytes.size() < kBookmarkBytes) return;
  const uint32_t crc = crc32c({bytes.data(), kBookmarkBytes - 4});
  std::memcpy(bytes.data() + kBookmarkBytes - 4, &crc, 4);
  test::make_loadable(bytes, kBookmarkBytes);
}

void try_saved(ByteSpan bytes) {
  const auto bookmark = read_bookmark(source_of(bytes));
  if (!bookmark.ok()) return;
  const ByteSpan head = bytes.first(kBookmarkBytes), rest = bytes.subspan(kBookmarkBytes);
  US_CHECK(std::ranges::equal(encode(*bookmark), head));
  NoOutputs outputs;
  const auto machine = hv::read_snapshot(source_of(rest), outputs);
  if (!machine.ok()) {
    US_CHECK(!read_saved_machine(*bookmark, source_of(rest), outputs).ok());
    return;
  }
  // Where the bookmark should say that it stands.
  Bookmark here = *bookmark;
  here.point = (*machine)->point();
  const bool elsewhere = bookmark->point != here.point;
  if (elsewhere) US_CHECK(!read_saved_machine(*bookmark, source_of(rest), outputs).ok());
  Bytes saved;
  US_CHECK(write_saved_replay(here, **machine, [&](ByteSpan part) -> Status {
             saved.insert(saved.end(), part.begin(), part.end());
             return Done{};
           }).ok());
  const auto source = source_of(saved);
  const auto again = read_bookmark(source);
  US_CHECK(again.ok() && *again == here);
  const auto copy = read_saved_machine(here, source, outputs);
  US_CHECK(copy.ok() && (*copy)->whole_digest() == (*machine)->whole_digest());
}

}  // namespace
}  // namespace us::replay

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  us::Bytes bytes(data, data + size);
  us::replay::make_right(bytes);
  us::replay::try_saved(bytes);
  return 0;
}
