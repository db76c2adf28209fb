// Any bytes as perf's ring of records, and any as a processor's trace: nothing is read out of
// bounds, and the pieces a trace comes in change neither what of it is the guest's nor whether it
// is whole. The first byte chooses.
#include <bit>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "ipt/capture/guest_filter.h"
#include "ipt/capture/records.h"
#include "ipt/normal_form.h"

namespace {

using us::Bytes;
using us::ByteSpan;

void read_ring(ByteSpan data) {
  uint64_t tail = 0, head = 0;
  if (data.size() < sizeof tail + sizeof head) return;
  std::memcpy(&tail, data.data(), sizeof tail);
  std::memcpy(&head, data.data() + sizeof tail, sizeof head);
  const ByteSpan rest = data.subspan(sizeof tail + sizeof head);
  const Bytes ring(rest.begin(),
                   rest.begin() + static_cast<ptrdiff_t>(std::bit_floor(rest.size())));
  // Most often a head that is possible, so that records are looked at.
  if (head % 4 != 0) head = tail + head % (ring.size() + 9);
  const us::ipt::RecordSummary out = us::ipt::read_records(ring, tail, head, 0, 4096);
  US_CHECK(out.records * sizeof(uint64_t) <= ring.size());
}

std::pair<Bytes, uint32_t> filtered(ByteSpan bytes, size_t piece, bool host_inside) {
  Bytes out;
  us::ipt::GuestFilter filter(host_inside,
                              [&out](ByteSpan b) { out.insert(out.end(), b.begin(), b.end()); });
  filter.resume(0x40'1000);
  while (!bytes.empty()) {
    const size_t n = piece < bytes.size() ? piece : bytes.size();
    const Bytes exact(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(n));
    filter.feed(exact);
    bytes = bytes.subspan(n);
  }
  return {std::move(out), filter.end_stretch()};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const ByteSpan rest(data + 1, size - 1);
  if (data[0] >= 200) {
    read_ring(rest);
    return 0;
  }
  const bool host_inside = (data[0] & 1) != 0;
  const size_t piece = 1 + data[0] % 70;
  const auto whole = filtered(rest, rest.size() + 1, host_inside);
  US_CHECK(filtered(rest, piece, host_inside) == whole);
  // What comes out is a trace, packet by packet, from a PSB or an OVF on.
  us::ipt::NormalForm form;
  form.feed(whole.first);
  US_CHECK(form.scanner().pending_bytes() == 0);
  return 0;
}
