#include "hv/devices/virtqueue.h"

#include <algorithm>
#include <cstring>

namespace us::hv {

namespace {

// Descriptor flags, virtio 1.2 2.7.5.
constexpr uint16_t kNext = 1;
constexpr uint16_t kWrite = 2;
constexpr uint16_t kIndirect = 4;

constexpr uint16_t kNoInterrupt = 1;  // available ring's flags, 2.7.6
constexpr uint32_t kDescriptorSize = 16;

}  // namespace

size_t gather(const GuestMemory& memory, const std::vector<Segment>& from, uint64_t skip,
              std::span<uint8_t> out) {
  size_t done = 0;
  for (const Segment& segment : from) {
    if (skip >= segment.length) {
      skip -= segment.length;
      continue;
    }
    const size_t count = std::min<size_t>(segment.length - skip, out.size() - done);
    if (!memory.read(segment.address + skip, out.subspan(done, count))) break;
    done += count;
    skip = 0;
    if (done == out.size()) break;
  }
  return done;
}

size_t scatter(GuestMemory& memory, const std::vector<Segment>& to, uint64_t skip, ByteSpan bytes) {
  size_t done = 0;
  for (const Segment& segment : to) {
    if (skip >= segment.length) {
      skip -= segment.length;
      continue;
    }
    const size_t count = std::min<size_t>(segment.length - skip, bytes.size() - done);
    if (!memory.write(segment.address + skip, bytes.subspan(done, count))) break;
    done += count;
    skip = 0;
    if (done == bytes.size()) break;
  }
  return done;
}

void Virtqueue::reset() {
  size_ = size_max_;
  descriptors = driver_area = device_area = 0;
  msix_vector = 0xffff;
  enabled_ = indirect_ = event_index_ = false;
  last_available_ = used_ = signalled_ = 0;
  fault_ = nullptr;
}

// The areas' sizes and alignments: virtio 1.2 2.7. Once they are known to lie in RAM, which never
// moves, the ring's own fields can be read without further checks.
const char* Virtqueue::enable() {
  if (size_ == 0 || size_ > size_max_ || (size_ & (size_ - 1)) != 0)
    return "queue size is not a power of two within the maximum";
  if ((descriptors & 15) != 0 || (driver_area & 1) != 0 || (device_area & 3) != 0)
    return "queue area is misaligned";
  if (!memory_.contains(GuestPhys(descriptors), uint64_t{kDescriptorSize} * size_))
    return "descriptor table lies outside memory";
  if (!memory_.contains(GuestPhys(driver_area), 6 + 2ull * size_))
    return "available ring lies outside memory";
  if (!memory_.contains(GuestPhys(device_area), 6 + 8ull * size_))
    return "used ring lies outside memory";
  enabled_ = true;
  return nullptr;
}

uint16_t Virtqueue::read16(uint64_t address) const {
  uint16_t value = 0;
  std::memcpy(&value, memory_.host(GuestPhys(address)), sizeof value);
  return value;
}

void Virtqueue::write16(uint64_t address, uint16_t value) {
  uint8_t bytes[2];
  std::memcpy(bytes, &value, sizeof value);
  memory_.write(GuestPhys(address), bytes);
}

Virtqueue::Descriptor Virtqueue::read_descriptor(uint64_t table, uint16_t index) const {
  const uint8_t* at = memory_.host(GuestPhys(table + uint64_t{kDescriptorSize} * index));
  Descriptor d;
  std::memcpy(&d.address, at, 8);
  std::memcpy(&d.length, at + 8, 4);
  std::memcpy(&d.flags, at + 12, 2);
  std::memcpy(&d.next, at + 14, 2);
  return d;
}

Virtqueue::Pop Virtqueue::pop(Chain& chain) {
  if (!enabled_) return Pop::kEmpty;
  const uint16_t available = read16(driver_area + 2);
  const auto waiting = static_cast<uint16_t>(available - last_available_);
  if (waiting == 0) return Pop::kEmpty;
  if (waiting > size_) return fail("available index runs ahead by more than the queue's size");
  const uint16_t head = read16(driver_area + 4 + 2ull * (last_available_ & (size_ - 1)));
  if (head >= size_) return fail("available ring names a descriptor outside the table");
  chain.head = head;
  chain.readable.clear();
  chain.writable.clear();
  chain.readable_bytes = chain.writable_bytes = 0;
  unsigned budget = size_;
  const char* wrong = walk(descriptors, size_, head, budget, chain, false);
  if (wrong != nullptr) return fail(wrong);
  ++last_available_;
  return Pop::kChain;
}

const char* Virtqueue::walk(uint64_t table, uint32_t count, uint16_t index, unsigned& budget,
                            Chain& chain, bool nested) {
  while (true) {
    if (budget == 0) return "descriptor chain is longer than the queue";
    --budget;
    const Descriptor d = read_descriptor(table, index);
    if ((d.flags & kIndirect) != 0) {
      // 2.7.5.3.1: negotiated, not within an indirect table, not with NEXT.
      if (!indirect_) return "indirect descriptor without the feature";
      if (nested) return "indirect descriptor inside an indirect table";
      if ((d.flags & kNext) != 0) return "indirect descriptor with a next one";
      const uint32_t entries = d.length / kDescriptorSize;
      if (entries == 0 || d.length % kDescriptorSize != 0 || entries > size_)
        return "indirect table has a bad length";
      if (!memory_.contains(GuestPhys(d.address), d.length))
        return "indirect table lies outside memory";
      budget = entries;
      return walk(d.address, entries, 0, budget, chain, true);
    }
    const char* wrong = add_segment(d, chain);
    if (wrong != nullptr) return wrong;
    if ((d.flags & kNext) == 0) return nullptr;
    if (d.next >= count) return "descriptor's next one lies outside the table";
    index = d.next;
  }
}

const char* Virtqueue::add_segment(const Descriptor& d, Chain& chain) {
  const bool writable = (d.flags & kWrite) != 0;
  if (!writable && !chain.writable.empty()) return "readable descriptor after a writable one";
  if (d.length == 0) return nullptr;  // lends nothing
  if (!memory_.contains(GuestPhys(d.address), d.length)) return "buffer lies outside memory";
  uint64_t& total = writable ? chain.writable_bytes : chain.readable_bytes;
  total += d.length;
  if (total > chain_bytes_max_) return "buffer is larger than the device takes";
  (writable ? chain.writable : chain.readable).push_back({GuestPhys(d.address), d.length});
  return nullptr;
}

void Virtqueue::push_used(uint16_t head, uint32_t written) {
  uint8_t entry[8] = {};
  std::memcpy(entry, &head, 2);
  std::memcpy(entry + 4, &written, 4);
  memory_.write(GuestPhys(device_area + 4 + 8ull * (used_ & (size_ - 1))), entry);
  ++used_;
  write16(device_area + 2, used_);
}

// virtio 1.2 2.7.7.
bool Virtqueue::take_interrupt() {
  const uint16_t before = signalled_;
  signalled_ = used_;
  if (used_ == before) return false;
  if (!event_index_) return (read16(driver_area) & kNoInterrupt) == 0;
  const uint16_t event = read16(driver_area + 4 + 2ull * size_);  // used_event
  return static_cast<uint16_t>(used_ - event - 1) < static_cast<uint16_t>(used_ - before);
}

void Virtqueue::want_notification() {
  if (event_index_) write16(device_area + 4 + 8ull * size_, last_available_);  // avail_event
}

void Virtqueue::save(ByteWriter& out) const {
  out.put(size_);
  out.put(descriptors);
  out.put(driver_area);
  out.put(device_area);
  out.put(msix_vector);
  for (bool flag : {enabled_, indirect_, event_index_}) out.put(static_cast<uint8_t>(flag));
  out.put(last_available_);
  out.put(used_);
  out.put(signalled_);
}

void Virtqueue::load(ByteReader& in) {
  reset();
  size_ = in.get<uint16_t>();
  descriptors = in.get<uint64_t>();
  driver_area = in.get<uint64_t>();
  device_area = in.get<uint64_t>();
  msix_vector = in.get<uint16_t>();
  const bool enabled = in.get<uint8_t>() != 0;
  indirect_ = in.get<uint8_t>() != 0;
  event_index_ = in.get<uint8_t>() != 0;
  last_available_ = in.get<uint16_t>();
  used_ = in.get<uint16_t>();
  signalled_ = in.get<uint16_t>();
  if (enabled && enable() != nullptr) in.fail();
}

}  // namespace us::hv
