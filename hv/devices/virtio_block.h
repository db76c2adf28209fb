// A virtio disk. Requests leave as DiskRequests when the driver notifies and come back as
// DiskDoneInputs; several are in flight at once. virtio 1.2 5.2.
#pragma once

#include <cstdint>
#include <map>

#include "hv/core/input_output.h"
#include "hv/devices/platform.h"
#include "hv/devices/virtio_pci.h"

namespace us::hv {

class VirtioBlock final : public VirtioPci {
 public:
  static constexpr uint16_t kQueueSize = 256;
  static constexpr uint32_t kSegmentsMax = 126;
  static constexpr uint32_t kSegmentBytesMax = 256 * 1024;
  static constexpr uint64_t kRequestBytesMax = uint64_t{kSegmentsMax} * kSegmentBytesMax;
  // The queue is left alone while this much is under way.
  static constexpr uint64_t kInFlightBytesMax = 64 << 20;
  static constexpr size_t kInFlightMax = 2 * kQueueSize;

  // `index`: the disk's number in DiskRequest::device.
  VirtioBlock(const VirtioContext& context, OutputSink& output, uint8_t index,
              const DiskConfig& config, unsigned irq);

  // Answers of requests that are not in flight are ignored.
  void done(const DiskDoneInput& input);
  // Everything submitted and not yet answered, oldest first.
  std::vector<DiskRequest> in_flight() const;

 protected:
  void read_device_config(uint64_t offset, std::span<uint8_t> out) const override;
  void notified(unsigned index) override;
  void device_reset() override;
  void save_device(ByteWriter& out) const override;
  void load_device(ByteReader& in) override;

 private:
  struct InFlight {
    uint16_t head = 0;
    bool orphan = false;        // the driver reset the device meanwhile
    GuestPhys status;           // where the status byte goes
    std::vector<Segment> into;  // reads: where the data goes
    DiskRequest request;        // as submitted; writes keep their data
  };

  void drain();
  void handle(const Chain& chain);
  void read_or_write(const Chain& chain, InFlight& flight, uint64_t sector);
  void discard_or_zero(const Chain& chain, InFlight& flight);
  void get_id(const Chain& chain, GuestPhys status);
  void submit(InFlight& flight);
  void finish(uint16_t head, GuestPhys status, uint8_t code, uint32_t data_bytes);
  bool in_range(uint64_t sector, uint64_t count) const {
    return sector <= sectors_ && count <= sectors_ - sector;
  }

  OutputSink& output_;
  const uint8_t index_;
  const uint64_t sectors_;
  const bool read_only_;
  const std::string serial_;
  uint32_t next_request_ = 0;
  std::map<uint32_t, InFlight> in_flight_;
  uint64_t in_flight_bytes_ = 0;  // derived
};

}  // namespace us::hv
