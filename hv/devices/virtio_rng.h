// A virtio entropy device. Its bytes are the ChaCha20 key stream of the configured seed, so both
// sides of a replay see the same ones; only the position in the stream is state. virtio 1.2 5.4.
#pragma once

#include <array>
#include <cstdint>

#include "hv/devices/virtio_pci.h"

namespace us::hv {

class VirtioRng final : public VirtioPci {
 public:
  static constexpr uint16_t kQueueSize = 64;
  static constexpr size_t kRequestBytesMax = 64 * 1024;  // longer requests are answered in part

  VirtioRng(const VirtioContext& context, const std::array<uint8_t, 32>& seed, unsigned irq);

 protected:
  void notified(unsigned index) override;
  void save_device(ByteWriter& out) const override { out.put(position_); }
  void load_device(ByteReader& in) override { position_ = in.get<uint64_t>(); }

 private:
  Bytes next_bytes(size_t count);

  const std::array<uint8_t, 32> seed_;
  uint64_t position_ = 0;  // 64-byte blocks of the key stream used so far
};

}  // namespace us::hv
