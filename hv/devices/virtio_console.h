// A virtio console with one port: a receive and a transmit queue of bytes. virtio 1.2 5.3.
#pragma once

#include <cstdint>
#include <deque>

#include "hv/core/input_output.h"
#include "hv/devices/virtio_pci.h"

namespace us::hv {

class VirtioConsole final : public VirtioPci {
 public:
  static constexpr uint16_t kQueueSize = 64;
  static constexpr size_t kQueueMax = 64 * 1024;  // bytes waiting for the driver

  // `index`: the console's number in OutputSink::console.
  VirtioConsole(const VirtioContext& context, OutputSink& output, uint8_t index, unsigned irq);

  // Bytes from outside; returns how many did not fit.
  size_t receive(ByteSpan bytes);

 protected:
  void notified(unsigned index) override;
  void save_device(ByteWriter& out) const override;
  void load_device(ByteReader& in) override;

 private:
  void transmit();
  void fill_buffers();

  OutputSink& output_;
  const uint8_t index_;
  std::deque<uint8_t> waiting_;
};

}  // namespace us::hv
