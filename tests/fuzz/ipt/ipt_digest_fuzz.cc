// Any bytes as an epoch's digest: decoding is safe, what it accepts encodes again to a digest that
// decodes to the same, and compares with itself as anything but different.
#include <cstdint>

#include "base/check.h"
#include "ipt/epoch_digest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  us::ByteReader in({data, size});
  const auto first = us::ipt::decode_epoch_digest(in);
  if (!first.ok()) return 0;
  us::ByteWriter out;
  first.value().encode(out);
  us::ByteReader again(out.bytes());
  const auto second = us::ipt::decode_epoch_digest(again);
  US_CHECK(second.ok() && second.value() == first.value());
  const us::ipt::Comparison self = us::ipt::compare(first.value(), second.value());
  US_CHECK(self.verdict != us::ipt::Verdict::kDiffers);
  // A second digest, if there is one, compares without harm.
  const auto other = us::ipt::decode_epoch_digest(in);
  if (other.ok()) (void)us::ipt::compare(first.value(), other.value()).text();
  return 0;
}
