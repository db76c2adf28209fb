#include "ipt/decode/block_decoder.h"

#include <fmt/format.h>
#include <intel-pt.h>
#include <utility>

#include "base/check.h"

namespace us::ipt {

struct BlockDecoder::Native {
  ReadCode read;
  pt_image* image = nullptr;
  pt_block_decoder* decoder = nullptr;

  ~Native() {
    if (decoder != nullptr) pt_blk_free_decoder(decoder);
    if (image != nullptr) pt_image_free(image);
  }

  static int serve(uint8_t* out, size_t size, const pt_asid* asid, uint64_t ip, void* context) {
    const auto& self = *static_cast<const Native*>(context);
    const bool known = asid != nullptr && asid->cr3 != pt_asid_no_cr3;
    const size_t n = self.read(known ? std::optional(asid->cr3) : std::nullopt, ip, {out, size});
    return n == 0 ? -pte_nomap : static_cast<int>(n);
  }
};

BlockDecoder::BlockDecoder(ByteSpan trace, ReadCode read, const DecodeOptions& options)
    : native_(std::make_unique<Native>()), blocks_left_(options.blocks_max) {
  native_->read = std::move(read);
  native_->image = pt_image_alloc("guest");
  US_CHECK(native_->image != nullptr, "out of memory");
  pt_image_set_callback(native_->image, &Native::serve, native_.get());
  pt_config config;
  pt_config_init(&config);
  // libipt only reads the trace; its interface does not say so.
  config.begin = const_cast<uint8_t*>(trace.data());
  config.end = config.begin + trace.size();
  if (options.family != 0) {
    config.cpu = {.vendor = pcv_intel,
                  .family = options.family,
                  .model = options.model,
                  .stepping = options.stepping};
    pt_cpu_errata(&config.errata, &config.cpu);
  }
  if (trace.empty()) return;
  native_->decoder = pt_blk_alloc_decoder(&config);
  US_CHECK(native_->decoder != nullptr, "libipt takes no decoder for {} bytes", trace.size());
  pt_blk_set_image(native_->decoder, native_->image);
}

BlockDecoder::~BlockDecoder() = default;

bool BlockDecoder::fail(const char* what, int code) {
  error_ = fmt::format("{}: {} at byte {}", what, pt_errstr(pt_errcode(code)), offset());
  return false;
}

uint64_t BlockDecoder::offset() const {
  uint64_t at = 0;
  if (native_->decoder != nullptr) pt_blk_get_offset(native_->decoder, &at);
  return at;
}

bool BlockDecoder::sync() {
  if (native_->decoder == nullptr) return false;
  status_ = pt_blk_sync_forward(native_->decoder);
  if (status_ == -pte_eos) return false;
  if (status_ < 0) return fail("no PSB to begin at", status_);
  synced_ = true;
  return take_events();
}

// Events stand between blocks. Where tracing was off or trace was lost, the next block does not
// follow the last.
bool BlockDecoder::take_events() {
  while ((status_ & pts_event_pending) != 0) {
    pt_event event{};
    status_ = pt_blk_event(native_->decoder, &event, sizeof event);
    if (status_ < 0) return fail("an event that cannot be", status_);
    switch (event.type) {
      case ptev_overflow: ++overflows_; [[fallthrough]];
      case ptev_enabled:
      case ptev_disabled:
      case ptev_async_disabled: resumed_ = true; break;
      default: break;
    }
  }
  return true;
}

std::optional<CodeBlock> BlockDecoder::next() {
  if (error_ || (!synced_ && !sync())) return std::nullopt;
  while (blocks_left_ != 0) {
    --blocks_left_;
    pt_block block{};
    status_ = pt_blk_next(native_->decoder, &block, sizeof block);
    if (status_ == -pte_eos) return std::nullopt;
    // Events that are pending now stand behind this block.
    const bool resumed = resumed_;
    if (block.ninsn != 0) resumed_ = false;
    if (status_ < 0) {
      fail("the trace does not fit the code", status_);
    } else {
      take_events();
    }
    if (block.ninsn != 0)
      return CodeBlock{
          .ip = block.ip, .end_ip = block.end_ip, .instructions = block.ninsn, .resumed = resumed};
    if (error_) return std::nullopt;
  }
  error_ = "too many blocks";
  return std::nullopt;
}

}  // namespace us::ipt
