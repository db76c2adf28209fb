// Any bytes as a trace: nothing is read out of bounds, and neither the pieces they come in nor the
// kernel that scans them changes counts or digests. The first byte chooses the pieces.
#include <cstdint>

#include "base/check.h"
#include "ipt/normal_form.h"
#include "ipt/trace_stat.h"

namespace {

using us::ByteSpan;
using us::ipt::EpochDigest;
using us::ipt::NormalForm;

EpochDigest digest_in_pieces(ByteSpan bytes, size_t piece, bool portable, bool system_wide) {
  us::ipt::NormalFormOptions options;
  options.system_wide = system_wide;
  NormalForm form(options);
  if (portable) form.scanner().use_portable_kernel();
  while (!bytes.empty()) {
    const size_t n = piece < bytes.size() ? piece : bytes.size();
    form.feed(bytes.first(n));
    bytes = bytes.subspan(n);
  }
  return form.end_epoch();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const size_t piece = 1 + data[0] % 100;
  const bool system_wide = data[0] >= 200;
  const us::Bytes bytes(data + 1, data + size);  // exactly sized, so that sanitizers see the end
  const EpochDigest whole = digest_in_pieces(bytes, bytes.size() + 1, false, system_wide);
  US_CHECK(digest_in_pieces(bytes, piece, false, system_wide) == whole);
  US_CHECK(digest_in_pieces(bytes, bytes.size() + 1, true, system_wide) == whole);
  us::ipt::TraceStatScanner scanner;
  for (size_t at = 0; at < bytes.size(); at += piece) {
    scanner.feed(
        ByteSpan(bytes).subspan(at, piece < bytes.size() - at ? piece : bytes.size() - at));
  }
  const us::ipt::TraceStat stat = scanner.finish();
  US_CHECK(stat.bytes == bytes.size());
  US_CHECK(stat.skipped_bytes + stat.cut_bytes <= stat.bytes);
  if (!system_wide) US_CHECK(stat.digest.branches() <= stat.tnt_bits);
  return 0;
}
