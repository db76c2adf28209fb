// A virtio network card without offloads: one receive and one transmit queue, mergeable receive
// buffers, link status. virtio 1.2 5.1.
#pragma once

#include <array>
#include <cstdint>
#include <deque>

#include "hv/core/input_output.h"
#include "hv/devices/virtio_pci.h"

namespace us::hv {

class VirtioNet final : public VirtioPci {
 public:
  static constexpr uint16_t kQueueSize = 256;
  static constexpr size_t kFrameMin = 14;
  static constexpr size_t kFrameMax = 1518;  // with a VLAN tag, without the checksum
  static constexpr size_t kFifoMax = 256;    // frames

  // `index`: the card's number among the net devices.
  VirtioNet(const VirtioContext& context, OutputSink& output, uint8_t index,
            const std::array<uint8_t, 6>& mac, unsigned irq);

  // A frame from the wire; waits in the FIFO until the driver lends buffers.
  void receive(ByteSpan frame);
  uint64_t frames_dropped() const { return frames_dropped_; }

 protected:
  void read_device_config(uint64_t offset, std::span<uint8_t> out) const override;
  void notified(unsigned index) override;
  void device_reset() override { fifo_.clear(); }
  void save_device(ByteWriter& out) const override;
  void load_device(ByteReader& in) override;

 private:
  void transmit();
  void fill_buffers();
  // Whether the frame is done with: delivered, or dropped for good.
  bool deliver(const Bytes& frame);

  OutputSink& output_;
  const uint8_t index_;
  const std::array<uint8_t, 6> mac_;
  std::deque<Bytes> fifo_;
  uint64_t frames_dropped_ = 0;
};

}  // namespace us::hv
