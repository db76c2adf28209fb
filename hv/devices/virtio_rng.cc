#include "hv/devices/virtio_rng.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <openssl/evp.h>

#include "base/check.h"

namespace us::hv {

namespace {

constexpr size_t kBlock = 64;
constexpr VirtioIdentity kIdentity = {.type = 4, .class_code = 0xff'0000, .features = 0};

}  // namespace

VirtioRng::VirtioRng(const VirtioContext& context, const std::array<uint8_t, 32>& seed,
                     unsigned irq)
    : VirtioPci(context, kIdentity, {{kQueueSize, uint64_t{16} << 20}}, irq), seed_(seed) {}

// The key stream from block position_ on. Each request starts a new block. OpenSSL's initial value
// is the 32-bit block counter and the 96-bit nonce (RFC 8439 2.3); the counter's upper half goes
// into the nonce, which keeps every block of 2^64 distinct.
Bytes VirtioRng::next_bytes(size_t count) {
  Bytes bytes(count, 0);
  size_t done = 0;
  while (done < count) {
    const uint64_t left_in_counter = 0x1'0000'0000ull - (position_ & 0xffff'ffff);
    const size_t piece = std::min<uint64_t>(count - done, left_in_counter * kBlock);
    uint8_t iv[16] = {};
    std::memcpy(iv, &position_, sizeof position_);
    const std::unique_ptr<EVP_CIPHER_CTX, void (*)(EVP_CIPHER_CTX*)> cipher(EVP_CIPHER_CTX_new(),
                                                                            EVP_CIPHER_CTX_free);
    int written = 0;
    US_CHECK(cipher != nullptr &&
             EVP_EncryptInit_ex(cipher.get(), EVP_chacha20(), nullptr, seed_.data(), iv) == 1 &&
             EVP_EncryptUpdate(cipher.get(), bytes.data() + done, &written, bytes.data() + done,
                               static_cast<int>(piece)) == 1 &&
             static_cast<size_t>(written) == piece);
    position_ += (piece + kBlock - 1) / kBlock;
    done += piece;
  }
  return bytes;
}

void VirtioRng::notified(unsigned) {
  Chain chain;
  for (unsigned i = 0; i < kQueueSize && pop(0, chain); ++i) {
    if (chain.writable_bytes == 0) return fail("entropy buffer that cannot be written");
    const size_t count = std::min<uint64_t>(chain.writable_bytes, kRequestBytesMax);
    scatter(memory(), chain.writable, 0, next_bytes(count));
    queue(0).push_used(chain.head, static_cast<uint32_t>(count));
  }
  if (!running()) return;
  queue(0).want_notification();
  interrupt_if_wanted(0);
}

}  // namespace us::hv
