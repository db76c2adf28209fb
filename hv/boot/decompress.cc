#include "hv/boot/decompress.h"

#include <algorithm>
#include <fmt/format.h>
#include <lz4.h>
#include <lzma.h>
#include <memory>
#include <zlib.h>
#include <zstd.h>

#include "hv/boot/boot_errors.h"
#include "hv/boot/image_bytes.h"

namespace us::hv {

namespace {

constexpr size_t kFirstRoom = 1 << 20;
constexpr uint32_t kLz4LegacyMagic = 0x184c2102;
constexpr size_t kLz4BlockMax = 8 << 20;  // LZ4 frame format, "Legacy frame"
constexpr uint64_t kXzMemoryMax = 256ull << 20;

enum class Step { kMore, kEnd, kBroken };

// Grows a buffer geometrically up to a limit while a decoder fills it.
class Output {
 public:
  Output(uint64_t limit, uint64_t expected) : limit_(limit) {
    bytes_.resize(std::min<uint64_t>(limit, std::max<uint64_t>(kFirstRoom, expected)));
  }
  uint8_t* next() { return bytes_.data() + used_; }
  size_t room() const { return bytes_.size() - used_; }
  void filled(size_t n) { used_ += n; }
  uint64_t limit() const { return limit_; }
  // False: the limit is reached.
  bool grow() {
    if (bytes_.size() >= limit_) return false;
    bytes_.resize(std::min<uint64_t>(limit_, uint64_t{bytes_.size()} * 2));
    return true;
  }
  Bytes take() {
    bytes_.resize(used_);
    return std::move(bytes_);
  }

 private:
  uint64_t limit_;
  Bytes bytes_;
  size_t used_ = 0;
};

UserError broken(const std::string& name, const char* format, std::string seen) {
  return boot_error("BOOT-007", fmt::format("cannot unpack {}", name), std::move(seen),
                    fmt::format("an unharmed {} payload", format),
                    "copy or download the kernel again");
}

UserError too_large(const std::string& name, uint64_t limit) {
  return boot_error("BOOT-009", fmt::format("{} does not fit into the machine's memory", name),
                    fmt::format("it unpacks to more than {} MiB", limit >> 20),
                    "memory for the whole unpacked kernel",
                    "give the machine more memory (--memory), or copy the kernel again");
}

// Drives `step` (which decodes into the output) to the end of the stream.
template <class StepFunction>
Result<Bytes> run_decoder(Output& out, const std::string& name, const char* format,
                          StepFunction step) {
  for (;;) {
    if (out.room() == 0 && !out.grow()) return too_large(name, out.limit());
    const size_t before = out.room();
    switch (step(out)) {
      case Step::kEnd: return out.take();
      case Step::kBroken: return broken(name, format, fmt::format("broken {} data", format));
      case Step::kMore:
        // No output although there was room: the input ended inside the stream.
        if (out.room() == before && before != 0)
          return broken(name, format, fmt::format("{} data that ends early", format));
    }
  }
}

Result<Bytes> unpack_xz(ByteSpan in, Output& out, const std::string& name) {
  lzma_stream stream = LZMA_STREAM_INIT;
  const std::unique_ptr<lzma_stream, void (*)(lzma_stream*)> guard(&stream, lzma_end);
  if (lzma_stream_decoder(&stream, kXzMemoryMax, 0) != LZMA_OK)
    return broken(name, "xz", "the decoder did not start");
  stream.next_in = in.data();
  stream.avail_in = in.size();
  return run_decoder(out, name, "xz", [&](Output& o) {
    stream.next_out = o.next();
    stream.avail_out = o.room();
    const lzma_ret result = lzma_code(&stream, LZMA_RUN);
    o.filled(o.room() - stream.avail_out);
    if (result == LZMA_STREAM_END) return Step::kEnd;
    return result == LZMA_OK ? Step::kMore : Step::kBroken;
  });
}

Result<Bytes> unpack_gzip(ByteSpan in, Output& out, const std::string& name) {
  z_stream stream{};
  if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK)
    return broken(name, "gzip", "the decoder did not start");
  const std::unique_ptr<z_stream, void (*)(z_stream*)> guard(&stream,
                                                             [](z_stream* s) { inflateEnd(s); });
  stream.next_in = const_cast<uint8_t*>(in.data());
  stream.avail_in = static_cast<uInt>(std::min<size_t>(in.size(), ~uInt{0}));
  return run_decoder(out, name, "gzip", [&](Output& o) {
    const auto room = static_cast<uInt>(std::min<size_t>(o.room(), 1u << 30));
    stream.next_out = o.next();
    stream.avail_out = room;
    const int result = inflate(&stream, Z_NO_FLUSH);
    o.filled(room - stream.avail_out);
    if (result == Z_STREAM_END) return Step::kEnd;
    return result == Z_OK || result == Z_BUF_ERROR ? Step::kMore : Step::kBroken;
  });
}

Result<Bytes> unpack_zstd(ByteSpan in, Output& out, const std::string& name) {
  const std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> stream(ZSTD_createDStream(),
                                                                        ZSTD_freeDStream);
  if (!stream || ZSTD_isError(ZSTD_DCtx_setParameter(stream.get(), ZSTD_d_windowLogMax, 27)))
    return broken(name, "zstd", "the decoder did not start");
  ZSTD_inBuffer input{in.data(), in.size(), 0};
  return run_decoder(out, name, "zstd", [&](Output& o) {
    ZSTD_outBuffer output{o.next(), o.room(), 0};
    const size_t result = ZSTD_decompressStream(stream.get(), &output, &input);
    o.filled(output.pos);
    if (ZSTD_isError(result)) return Step::kBroken;
    return result == 0 ? Step::kEnd : Step::kMore;
  });
}

// Blocks of {u32 size, data}, each unpacking to 8 MiB but the last, which unpacks to less; the
// frame has no end mark.
Result<Bytes> unpack_lz4(ByteSpan in, Output& out, const std::string& name) {
  uint64_t at = 4;
  return run_decoder(out, name, "lz4", [&](Output& o) {
    for (;;) {
      if (!in_bounds(at, 4, in.size())) return Step::kEnd;
      const uint32_t size = load_at<uint32_t>(in, at);
      if (size == kLz4LegacyMagic) {
        at += 4;
        continue;
      }
      if (at + 4 == in.size()) return Step::kEnd;  // the appended size, after full blocks only
      if (size == 0 || !in_bounds(at + 4, size, in.size())) return Step::kBroken;
      while (o.room() < kLz4BlockMax && o.grow()) {
      }
      const auto room = static_cast<int>(std::min(o.room(), kLz4BlockMax));
      const int got = LZ4_decompress_safe(
          reinterpret_cast<const char*>(in.data() + at + 4), reinterpret_cast<char*>(o.next()),
          static_cast<int>(std::min<uint32_t>(size, 1u << 30)), room);
      if (got < 0) return Step::kBroken;
      o.filled(static_cast<size_t>(got));
      at += 4 + uint64_t{size};
      if (static_cast<size_t>(got) < kLz4BlockMax) return Step::kEnd;
    }
  });
}

using Unpacker = Result<Bytes> (*)(ByteSpan, Output&, const std::string&);
struct Format {
  const char* name;
  size_t magic_size;
  uint8_t magic[6];
  Unpacker unpack;  // null: known, but not unpacked here
};

constexpr Format kFormats[] = {
    {"xz", 6, {0xfd, '7', 'z', 'X', 'Z', 0}, unpack_xz},
    {"zstd", 4, {0x28, 0xb5, 0x2f, 0xfd}, unpack_zstd},
    {"gzip", 3, {0x1f, 0x8b, 8}, unpack_gzip},
    {"lz4", 4, {0x02, 0x21, 0x4c, 0x18}, unpack_lz4},
    {"bzip2", 3, {'B', 'Z', 'h'}, nullptr},
    {"lzma", 3, {0x5d, 0, 0}, nullptr},
    {"lzo", 4, {0x89, 'L', 'Z', 'O'}, nullptr},
};

const Format* find_format(ByteSpan payload) {
  for (const Format& format : kFormats)
    if (payload.size() >= format.magic_size &&
        std::memcmp(payload.data(), format.magic, format.magic_size) == 0)
      return &format;
  return nullptr;
}

}  // namespace

const char* payload_format(ByteSpan payload) {
  const Format* format = find_format(payload);
  return format ? format->name : nullptr;
}

Result<Bytes> decompress_payload(ByteSpan payload, uint64_t limit, const std::string& name) {
  const Format* format = find_format(payload);
  if (!format || !format->unpack)
    return boot_error("BOOT-006", fmt::format("{} is packed in a way not understood", name),
                      format ? format->name : "unknown first bytes", "xz, zstd, gzip or lz4",
                      "use a kernel packed with one of these, or its unpacked vmlinux");
  // The last four bytes are the unpacked size (also in gzip's own trailer); only a hint for the
  // first allocation, and bounded by what this input could plausibly hold.
  const uint64_t hint = load_at<uint32_t>(payload, payload.size() - 4);
  Output out(limit, std::min<uint64_t>(hint + kFirstRoom, payload.size() * 16));
  return format->unpack(payload, out, name);
}

}  // namespace us::hv
