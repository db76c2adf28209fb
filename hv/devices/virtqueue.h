// A split virtqueue, seen from the device. Everything in guest memory is hostile: every index and
// length is checked, every walk is bounded by the queue's size. virtio 1.2 2.7.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hv/core/memory.h"
#include "hv/devices/device.h"

namespace us::hv {

// Guest memory that the driver lent: checked to lie in RAM.
struct Segment {
  GuestPhys address;
  uint32_t length = 0;
};

// One buffer: the device-readable part, then the device-writable part.
struct Chain {
  uint16_t head = 0;
  std::vector<Segment> readable;
  std::vector<Segment> writable;
  uint64_t readable_bytes = 0;
  uint64_t writable_bytes = 0;
};

// Copies out of, or into, a list of segments, `skip` bytes from its start; returns how many bytes
// there were to copy.
size_t gather(const GuestMemory& memory, const std::vector<Segment>& from, uint64_t skip,
              std::span<uint8_t> out);
size_t scatter(GuestMemory& memory, const std::vector<Segment>& to, uint64_t skip, ByteSpan bytes);

class Virtqueue final : public Device {
 public:
  enum class Pop : uint8_t { kEmpty, kChain, kFault };

  Virtqueue(GuestMemory& memory, uint16_t size_max, uint64_t chain_bytes_max)
      : memory_(memory), size_max_(size_max), chain_bytes_max_(chain_bytes_max) {
    reset();
  }

  void reset();

  // --- Set-up by the driver.
  uint16_t size() const { return size_; }
  void set_size(uint16_t size) { size_ = size; }
  uint64_t descriptors = 0, driver_area = 0, device_area = 0;  // guest physical
  uint16_t msix_vector = 0xffff;
  bool enabled() const { return enabled_; }
  // Checks size, alignment and place of the three areas; nullptr, or what is wrong.
  const char* enable();
  void set_features(bool indirect, bool event_index) {
    indirect_ = indirect;
    event_index_ = event_index;
  }

  // --- Running. kFault leaves the reason in fault().
  Pop pop(Chain& chain);
  // Gives the last popped chains back to the ring, as if never popped.
  void unpop(uint16_t count) { last_available_ = static_cast<uint16_t>(last_available_ - count); }
  void push_used(uint16_t head, uint32_t written);
  // Whether the driver wants an interrupt for what was pushed since it was last asked.
  bool take_interrupt();
  // Asks the driver to notify when it adds the next buffer.
  void want_notification();
  const char* fault() const { return fault_; }
  std::string dump() const;

  void save(ByteWriter& out) const override;
  void load(ByteReader& in) override;

 private:
  struct Descriptor {
    uint64_t address = 0;
    uint32_t length = 0;
    uint16_t flags = 0;
    uint16_t next = 0;
  };

  Pop fail(const char* reason) {
    fault_ = reason;
    return Pop::kFault;
  }
  // Follows the chain that starts at `index` of the table at `table` with `count` entries.
  // Returns nullptr or what is wrong. `budget`: descriptors that may still be read.
  const char* walk(uint64_t table, uint32_t count, uint16_t index, unsigned& budget, Chain& chain,
                   bool nested);
  const char* add_segment(const Descriptor& descriptor, Chain& chain);
  Descriptor read_descriptor(uint64_t table, uint16_t index) const;
  uint16_t read16(uint64_t address) const;
  void write16(uint64_t address, uint16_t value);

  GuestMemory& memory_;
  const uint16_t size_max_;
  const uint64_t chain_bytes_max_;
  uint16_t size_ = 0;
  bool enabled_ = false;
  bool indirect_ = false;
  bool event_index_ = false;
  uint16_t last_available_ = 0;
  uint16_t used_ = 0;
  uint16_t signalled_ = 0;  // used_ when the driver was last asked
  const char* fault_ = nullptr;
};

}  // namespace us::hv
