// A well-formed bzImage around a fuzzed vmlinux in a stored (unpacked) gzip stream, so that the
// mutations reach the ELF behind the decoder.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <zlib.h>

#include "tests/fuzz/boot/load_target.h"

namespace {

us::Bytes stored_gzip(us::ByteSpan bytes) {
  us::Bytes out(bytes.size() + bytes.size() / 1000 + 128);
  z_stream stream{};
  US_CHECK(deflateInit2(&stream, 0, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  stream.next_in = const_cast<uint8_t*>(bytes.data());
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = out.data();
  stream.avail_out = static_cast<uInt>(out.size());
  US_CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

us::Bytes wrap(const us::Bytes& payload) {
  us::Bytes image(1024, 0);
  const auto store = [&](size_t at, auto value) {
    std::memcpy(image.data() + at, &value, sizeof value);
  };
  store(0x1f1, uint8_t{1});
  store(0x1fe, uint16_t{0xaa55});
  store(0x201, uint8_t{0x6a});
  store(0x202, uint32_t{0x53726448});
  store(0x206, uint16_t{0x020f});
  store(0x236, uint16_t{1});
  store(0x24c, static_cast<uint32_t>(payload.size()));
  image.insert(image.end(), payload.begin(), payload.end());
  return image;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  us::hv::load_and_check(wrap(stored_gzip({data, size})), {}, us::hv::BootChoice::kAuto);
  return 0;
}
