// Arbitrary bytes as the frames of a peer or a file. Checksums are made right first (a fuzzer does
// not find them), so that lengths, flags, compression and records behind them are reached.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/check.h"
#include "base/crc32c.h"
#include "logchannel/frame.h"

namespace us::log {
namespace {

void make_checksums_right(Bytes& bytes) {
  for (size_t at = 0; at + kFrameHeaderBytes <= bytes.size();) {
    uint8_t* header = bytes.data() + at;
    uint32_t stored;
    std::memcpy(&stored, header + 8, 4);
    const size_t left = bytes.size() - at - kFrameHeaderBytes;
    const size_t payload = std::min<size_t>(stored, left);
    const uint32_t payload_crc = crc32c({header + kFrameHeaderBytes, payload});
    std::memcpy(header + 32, &payload_crc, 4);
    const uint32_t header_crc = crc32c({header, 36});
    std::memcpy(header + 36, &header_crc, 4);
    at += kFrameHeaderBytes + payload;
  }
}

void read_all(const Bytes& bytes) {
  FrameReader reader({.records_bytes_max = 1 << 20, .first_position = {}});
  RecordDecoder decoder;
  size_t fed = 0;
  for (;;) {
    fed += reader.feed(ByteSpan(bytes).subspan(fed));
    auto frame = reader.next();
    if (!frame || !frame->has_value()) return;
    if (((*frame)->header.flags & kFrameFresh) != 0) decoder.start_afresh();
    ByteReader in((*frame)->records);
    for (;;) {
      auto record = decoder.decode(in);
      if (!record) return;
      if (!record->has_value()) break;
      US_CHECK(within_bounds(**record));
    }
  }
}

}  // namespace
}  // namespace us::log

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  us::Bytes bytes(data, data + size);
  us::log::read_all(bytes);
  us::log::make_checksums_right(bytes);
  us::log::read_all(bytes);
  return 0;
}
