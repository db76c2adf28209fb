#include "hv/devices/virtio_pci.h"

#include <algorithm>
#include <cstring>

namespace us::hv {

namespace {

constexpr uint16_t kVendor = 0x1af4;
constexpr uint16_t kDeviceBase = 0x1040;  // plus the device type, 4.1.2.1

// struct virtio_pci_cap, 4.1.4.
constexpr uint8_t kCapVendor = 0x09;
constexpr uint8_t kCapMsix = 0x11;
constexpr uint8_t kCfgCommon = 1, kCfgNotify = 2, kCfgIsr = 3, kCfgDevice = 4, kCfgPci = 5;
constexpr unsigned kWindowBar = 4, kWindowOffset = 8, kWindowLength = 12, kWindowData = 16;

// struct virtio_pci_common_cfg, 4.1.4.3.
enum Common : uint64_t {
  kDeviceFeatureSelect = 0,
  kDeviceFeature = 4,
  kDriverFeatureSelect = 8,
  kDriverFeature = 12,
  kConfigVector = 16,
  kQueueCount = 18,
  kStatus = 20,
  kConfigGeneration = 21,
  kQueueSelect = 22,
  kQueueSize = 24,
  kQueueVector = 26,
  kQueueEnable = 28,
  kQueueNotifyOffset = 30,
  kQueueDescriptors = 32,
  kQueueDriver = 40,
  kQueueDevice = 48,
  kCommonSize = 56,
};

constexpr uint8_t kIsrQueue = 1;
constexpr uint8_t kIsrConfig = 2;
constexpr uint16_t kNoVector = 0xffff;

PciIdentity pci_identity(const VirtioIdentity& identity) {
  return {.vendor = kVendor,
          .device = static_cast<uint16_t>(kDeviceBase + identity.type),
          .subsystem_vendor = kVendor,
          .subsystem = static_cast<uint16_t>(kDeviceBase + identity.type),
          .revision = 1,
          .class_code = identity.class_code};
}

void set_half(uint64_t& field, bool high, uint32_t half) {
  const unsigned shift = high ? 32 : 0;
  field = (field & ~(0xffff'ffffull << shift)) | static_cast<uint64_t>(half) << shift;
}

}  // namespace

VirtioPci::VirtioPci(const VirtioContext& context, const VirtioIdentity& identity,
                     const std::vector<QueueShape>& queues, unsigned irq)
    : PciFunction(pci_identity(identity)),
      memory_(context.memory),
      irq_(context.interrupts, irq),
      msix_(context.msi, static_cast<unsigned>(queues.size()) + 1),
      features_(identity.features | kFeatureIndirect | kFeatureEventIndex | kFeatureVersion1) {
  queues_.reserve(queues.size());
  for (const QueueShape& shape : queues)
    queues_.emplace_back(memory_, shape.size, shape.chain_bytes_max);
  set_interrupt_pin(1);  // INTA#
  add_bar(0, kBarSize, this);
  add_bar(1, Msix::kBarSize, &msix_);
  add_capabilities();
}

void VirtioPci::add_capabilities() {
  const auto add = [this](uint8_t type, uint32_t offset, uint32_t length, uint32_t extra,
                          bool has_extra, bool window) {
    ByteWriter body;
    body.put(static_cast<uint8_t>(has_extra ? 20 : 16));  // cap_len
    body.put(type);
    body.put<uint32_t>(0);  // BAR 0, id 0, padding
    body.put(offset);
    body.put(length);
    if (has_extra) body.put(extra);
    Bytes writable(body.size(), 0);
    if (window) {  // the driver chooses BAR, offset and length, then reads or writes the data
      std::fill(writable.begin() + kWindowOffset - 2, writable.end(), 0xff);
      writable[kWindowBar - 2] = 0xff;
    }
    return add_capability(kCapVendor, body.bytes(), writable);
  };
  add(kCfgCommon, kCommonOffset, kCommonSize, 0, false, false);
  add(kCfgNotify, kNotifyOffset, 0x1000, kNotifyMultiplier, true, false);
  add(kCfgIsr, kIsrOffset, 4, 0, false, false);
  add(kCfgDevice, kDeviceOffset, 0x1000, 0, false, false);
  window_capability_ = add(kCfgPci, 0, 0, 0, true, true);
  ByteWriter msix;
  msix.put(static_cast<uint16_t>(msix_.vectors() - 1));
  msix.put<uint32_t>(Msix::kTableOffset | 1);  // in BAR 1
  msix.put<uint32_t>(Msix::kPendingOffset | 1);
  Bytes writable(msix.size(), 0);
  writable[1] = 0xc0;  // enable and function mask
  msix_capability_ = add_capability(kCapMsix, msix.bytes(), writable);
}

// --- Configuration space

void VirtioPci::config_was_written(unsigned offset, unsigned size) {
  const auto touches = [&](unsigned at, unsigned length) {
    return offset < at + length && offset + size > at;
  };
  if (touches(msix_capability_ + 2, 2)) {
    const uint16_t control = config16(msix_capability_ + 2);
    msix_.set_control((control & 0x8000) != 0, (control & 0x4000) != 0);
    update_intx();
  }
  if (touches(kCommand, 2)) update_intx();
  if (touches(window_capability_ + kWindowData, 4)) access_window(true);
}

void VirtioPci::config_will_be_read(unsigned offset, unsigned size) {
  const unsigned data = window_capability_ + kWindowData;
  if (offset < data + 4 && offset + size > data) access_window(false);
}

// VIRTIO_PCI_CAP_PCI_CFG: BAR access through configuration space, 4.1.4.9.
void VirtioPci::access_window(bool write) {
  const uint32_t bar = config16(window_capability_ + kWindowBar) & 0xff;
  const uint32_t offset = config32(window_capability_ + kWindowOffset);
  const uint32_t length = config32(window_capability_ + kWindowLength);
  const unsigned data = window_capability_ + kWindowData;
  if ((length != 1 && length != 2 && length != 4) || offset % length != 0 || bar > 1) return;
  if (offset >= (bar == 0 ? kBarSize : Msix::kBarSize)) return;
  MmioDevice& target = bar == 0 ? static_cast<MmioDevice&>(*this) : msix_;
  if (write) {
    target.mmio_write(offset, length, config32(data) & all_ones(length));
  } else {
    set_config(data, 4, static_cast<uint32_t>(target.mmio_read(offset, length)));
  }
}

// --- BAR 0

uint64_t VirtioPci::mmio_read(uint64_t offset, unsigned size) {
  if (offset < kIsrOffset) return read_common(offset - kCommonOffset, size);
  if (offset < kDeviceOffset) {
    if (offset != kIsrOffset) return 0;
    const uint8_t isr = isr_;  // reading acknowledges, 4.1.4.5
    isr_ = 0;
    update_intx();
    return isr;
  }
  if (offset >= kNotifyOffset) return 0;
  uint8_t bytes[8] = {};
  read_device_config(offset - kDeviceOffset, std::span(bytes, size));
  uint64_t value = 0;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

void VirtioPci::mmio_write(uint64_t offset, unsigned size, uint64_t value) {
  if (offset >= kNotifyOffset)
    return notify(static_cast<unsigned>((offset - kNotifyOffset) / kNotifyMultiplier));
  if (offset >= kDeviceOffset) {
    uint8_t bytes[8];
    std::memcpy(bytes, &value, sizeof value);
    return write_device_config(offset - kDeviceOffset, ByteSpan(bytes, size));
  }
  if (offset < kIsrOffset) write_common(offset - kCommonOffset, size, value);
}

void VirtioPci::read_device_config(uint64_t, std::span<uint8_t> out) const {
  std::fill(out.begin(), out.end(), uint8_t{0});
}

void VirtioPci::copy_config(ByteSpan config, uint64_t offset, std::span<uint8_t> out) {
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = offset + i < config.size() ? config[offset + i] : uint8_t{0};
}

uint64_t VirtioPci::read_common(uint64_t offset, unsigned size) {
  uint8_t image[kCommonSize] = {};
  const auto put = [&image](uint64_t at, auto value) {
    std::memcpy(image + at, &value, sizeof value);
  };
  const auto half = [](uint64_t bits, uint32_t select) {
    return static_cast<uint32_t>(select < 2 ? bits >> (32 * select) : 0);
  };
  put(kDeviceFeatureSelect, device_feature_select_);
  put(kDeviceFeature, half(features_, device_feature_select_));
  put(kDriverFeatureSelect, driver_feature_select_);
  put(kDriverFeature, half(driver_features_, driver_feature_select_));
  put(kConfigVector, config_vector_);
  put(kQueueCount, static_cast<uint16_t>(queues_.size()));
  put(kStatus, status_);
  put(kQueueSelect, queue_select_);
  if (queue_select_ < queues_.size()) {
    const Virtqueue& q = queues_[queue_select_];
    put(kQueueSize, q.size());
    put(kQueueVector, q.msix_vector);
    put(kQueueEnable, static_cast<uint16_t>(q.enabled()));
    put(kQueueNotifyOffset, queue_select_);
    put(kQueueDescriptors, q.descriptors);
    put(kQueueDriver, q.driver_area);
    put(kQueueDevice, q.device_area);
  }
  uint64_t value = 0;
  if (offset + size <= kCommonSize) std::memcpy(&value, image + offset, size);
  return value;
}

// Fields take accesses of their own width, 64-bit fields also of half (4.1.3.1).
void VirtioPci::write_common(uint64_t offset, unsigned size, uint64_t value) {
  const auto word = static_cast<uint32_t>(value);
  switch (offset) {
    case kDeviceFeatureSelect: device_feature_select_ = word; return;
    case kDriverFeatureSelect: driver_feature_select_ = word; return;
    case kDriverFeature:
      if ((status_ & kFeaturesOk) == 0 && driver_feature_select_ < 2)
        set_half(driver_features_, driver_feature_select_ == 1, word);
      return;
    case kConfigVector: config_vector_ = checked_vector(value); return;
    case kStatus: return write_status(static_cast<uint8_t>(value));
    case kQueueSelect: queue_select_ = static_cast<uint16_t>(value); return;
    default:
      if (offset >= kQueueSize && queue_select_ < queues_.size()) write_queue(offset, size, value);
  }
}

void VirtioPci::write_queue(uint64_t offset, unsigned size, uint64_t value) {
  Virtqueue& q = queues_[queue_select_];
  if (offset == kQueueVector) {
    q.msix_vector = checked_vector(value);
    return;
  }
  if (q.enabled()) return;  // 4.1.4.3.2: nothing else may change
  if (offset == kQueueSize) return q.set_size(static_cast<uint16_t>(value));
  if (offset == kQueueEnable) {
    if (value == 1) enable_queue();
    return;
  }
  for (const auto& [at, field] : {std::pair{uint64_t{kQueueDescriptors}, &q.descriptors},
                                  std::pair{uint64_t{kQueueDriver}, &q.driver_area},
                                  std::pair{uint64_t{kQueueDevice}, &q.device_area}}) {
    if (offset == at && size == 8) *field = value;
    if (size == 4 && (offset == at || offset == at + 4))
      set_half(*field, offset != at, static_cast<uint32_t>(value));
  }
}

void VirtioPci::enable_queue() {
  Virtqueue& q = queues_[queue_select_];
  q.set_features(has_feature(kFeatureIndirect), has_feature(kFeatureEventIndex));
  const char* wrong = q.enable();
  if (wrong != nullptr) fail(wrong);
}

// A vector the table does not have is answered with "none" (4.1.5.1.2).
uint16_t VirtioPci::checked_vector(uint64_t value) const {
  return value < msix_.vectors() ? static_cast<uint16_t>(value) : kNoVector;
}

void VirtioPci::write_status(uint8_t value) {
  if (value == 0) return reset();
  const uint8_t before = status_;
  // Only a reset takes bits away (2.1.1); NEEDS_RESET is the device's own.
  status_ = static_cast<uint8_t>(before | (value & ~kNeedsReset));
  const bool acceptable = (driver_features_ & ~features_) == 0 && has_feature(kFeatureVersion1);
  if ((before & kFeaturesOk) == 0 && !acceptable)
    status_ &= static_cast<uint8_t>(~kFeaturesOk);  // 2.2.2: refused
  if ((before & kDriverOk) == 0 && running()) {
    // Buffers added before DRIVER_OK are the driver's to announce; a look costs nothing.
    for (unsigned i = 0; i < queues_.size(); ++i) notify(i);
  }
}

void VirtioPci::reset() {
  device_feature_select_ = driver_feature_select_ = 0;
  driver_features_ = 0;
  config_vector_ = kNoVector;
  status_ = 0;
  isr_ = 0;
  queue_select_ = 0;
  failure_ = nullptr;
  for (Virtqueue& q : queues_) q.reset();
  update_intx();
  device_reset();
}

// --- Running

void VirtioPci::notify(unsigned index) {
  if (index < queues_.size() && running() && queues_[index].enabled()) notified(index);
}

bool VirtioPci::pop(unsigned index, Chain& chain) {
  if (!running()) return false;
  const Virtqueue::Pop result = queues_[index].pop(chain);
  if (result == Virtqueue::Pop::kFault) fail(queues_[index].fault());
  return result == Virtqueue::Pop::kChain;
}

void VirtioPci::interrupt_if_wanted(unsigned index) {
  Virtqueue& q = queues_[index];
  if (q.enabled() && q.take_interrupt()) raise(q.msix_vector, kIsrQueue);
}

void VirtioPci::raise(uint16_t vector, uint8_t isr_bits) {
  if (msix_.enabled()) {
    if (vector != kNoVector) msix_.signal(vector);
    return;
  }
  isr_ |= isr_bits;
  update_intx();
}

void VirtioPci::update_intx() { irq_.set(isr_ != 0 && !msix_.enabled() && !intx_disabled()); }

void VirtioPci::fail(const char* reason) {
  if (failure_ == nullptr) failure_ = reason;
  if (failed()) return;
  status_ |= kNeedsReset;
  if ((status_ & kDriverOk) != 0) raise(config_vector_, kIsrConfig);  // 2.1.2
}

// --- State

void VirtioPci::save(ByteWriter& out) const {
  PciFunction::save(out);
  msix_.save(out);
  out.put(device_feature_select_);
  out.put(driver_feature_select_);
  out.put(driver_features_);
  out.put(config_vector_);
  out.put(status_);
  out.put(isr_);
  out.put(queue_select_);
  for (const Virtqueue& q : queues_) q.save(out);
  save_device(out);
}

void VirtioPci::load(ByteReader& in) {
  PciFunction::load(in);
  msix_.load(in);
  device_feature_select_ = in.get<uint32_t>();
  driver_feature_select_ = in.get<uint32_t>();
  driver_features_ = in.get<uint64_t>();
  config_vector_ = in.get<uint16_t>();
  status_ = in.get<uint8_t>();
  isr_ = in.get<uint8_t>();
  queue_select_ = in.get<uint16_t>();
  failure_ = failed() ? "failed before the state was saved" : nullptr;
  for (Virtqueue& q : queues_) q.load(in);
  load_device(in);
}

}  // namespace us::hv
