// The virtio 1.x PCI transport: what all virtio devices share. Modern only; split rings with
// indirect descriptors and event indices. virtio 1.2 chapters 2 and 4.1.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hv/core/memory.h"
#include "hv/devices/msix.h"
#include "hv/devices/pci.h"
#include "hv/devices/virtqueue.h"

namespace us::hv {

struct VirtioContext {
  GuestMemory& memory;
  InterruptSink& interrupts;
  MsiSink& msi;
};

struct VirtioIdentity {
  uint16_t type = 0;        // virtio 1.2 chapter 5: 1 net, 2 block, 3 console, 4 entropy
  uint32_t class_code = 0;  // PCI
  uint64_t features = 0;    // of the device type; the transport adds its own
};

class VirtioPci : public PciFunction, public MmioDevice {
 public:
  struct QueueShape {
    uint16_t size = 0;
    uint64_t chain_bytes_max = 0;
  };

  // `irq`: the INTx line its slot is wired to.
  VirtioPci(const VirtioContext& context, const VirtioIdentity& identity,
            const std::vector<QueueShape>& queues, unsigned irq);

  uint64_t mmio_read(uint64_t offset, unsigned size) override;
  void mmio_write(uint64_t offset, unsigned size, uint64_t value) override;

  bool failed() const { return (status_ & kNeedsReset) != 0; }
  // Why the device gave up, until the driver resets it; nullptr while it works.
  const char* failure() const { return failure_; }
  std::string dump() const;

  void save(ByteWriter& out) const override;
  void load(ByteReader& in) override;

  // Device status bits, 2.1.
  static constexpr uint8_t kAcknowledge = 1, kDriver = 2, kDriverOk = 4, kFeaturesOk = 8,
                           kNeedsReset = 64, kFailed = 128;
  // Feature bits of the transport, chapter 6.
  static constexpr uint64_t kFeatureIndirect = 1ull << 28;
  static constexpr uint64_t kFeatureEventIndex = 1ull << 29;
  static constexpr uint64_t kFeatureVersion1 = 1ull << 32;

  // Where the parts lie in BAR 0; the MSI-X table is BAR 1.
  static constexpr uint32_t kCommonOffset = 0x0000;
  static constexpr uint32_t kIsrOffset = 0x1000;
  static constexpr uint32_t kDeviceOffset = 0x2000;
  static constexpr uint32_t kNotifyOffset = 0x3000;
  static constexpr uint32_t kBarSize = 0x4000;
  static constexpr uint32_t kNotifyMultiplier = 4;

 protected:
  // --- What a device type does.
  virtual void read_device_config(uint64_t offset, std::span<uint8_t> out) const;
  virtual void write_device_config(uint64_t offset, ByteSpan bytes) {}
  // The driver notified queue `index`; only called while running().
  virtual void notified(unsigned index) = 0;
  // The driver reset the device: forget everything but the configuration.
  virtual void device_reset() {}
  virtual void save_device(ByteWriter& out) const {}
  virtual void load_device(ByteReader& in) {}

  // --- What a device type uses.
  GuestMemory& memory() { return memory_; }
  bool running() const {
    constexpr uint8_t kLive = kDriverOk | kFeaturesOk;
    return (status_ & (kLive | kNeedsReset)) == kLive;
  }
  bool has_feature(uint64_t bit) const { return (driver_features_ & bit) != 0; }
  Virtqueue& queue(unsigned index) { return queues_[index]; }
  const Virtqueue& queue(unsigned index) const { return queues_[index]; }
  // The next chain of a queue. False: none, or the ring was bad and the device failed.
  bool pop(unsigned index, Chain& chain);
  // Interrupts the driver if it wants to know of what was pushed.
  void interrupt_if_wanted(unsigned index);
  // The driver broke the protocol: stop until it resets the device.
  void fail(const char* reason);

  void config_will_be_read(unsigned offset, unsigned size) override;
  void config_was_written(unsigned offset, unsigned size) override;

  // Copies the part of `config` that starts at `offset`; beyond its end zeros.
  static void copy_config(ByteSpan config, uint64_t offset, std::span<uint8_t> out);

 private:
  void add_capabilities();
  uint64_t read_common(uint64_t offset, unsigned size);
  void write_common(uint64_t offset, unsigned size, uint64_t value);
  void write_queue(uint64_t offset, unsigned size, uint64_t value);
  void write_status(uint8_t value);
  void enable_queue();
  void reset();
  void notify(unsigned index);
  void raise(uint16_t msix_vector, uint8_t isr_bits);
  void update_intx();
  uint16_t checked_vector(uint64_t value) const;
  void access_window(bool write);

  GuestMemory& memory_;
  IrqLine irq_;
  Msix msix_;
  const uint64_t features_;
  std::vector<Virtqueue> queues_;
  unsigned msix_capability_ = 0;
  unsigned window_capability_ = 0;

  uint32_t device_feature_select_ = 0;
  uint32_t driver_feature_select_ = 0;
  uint64_t driver_features_ = 0;
  uint16_t config_vector_ = 0xffff;
  uint8_t status_ = 0;
  uint8_t isr_ = 0;
  uint16_t queue_select_ = 0;
  const char* failure_ = nullptr;
};

}  // namespace us::hv
