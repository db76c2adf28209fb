#include "hv/devices/virtio_net.h"

#include <algorithm>

namespace us::hv {

namespace {

// Feature bits, 5.1.3.
constexpr uint64_t kFeatureMac = 1u << 5;
constexpr uint64_t kFeatureMergeable = 1u << 15;
constexpr uint64_t kFeatureStatus = 1u << 16;

constexpr unsigned kReceive = 0, kTransmit = 1;
constexpr size_t kHeaderSize = 12;  // struct virtio_net_hdr with num_buffers, 5.1.6
constexpr size_t kNumBuffersAt = 10;
constexpr uint64_t kChainBytesMax = 128 * 1024;

constexpr VirtioIdentity kIdentity = {.type = 1,
                                      .class_code = 0x02'0000,
                                      .features = kFeatureMac | kFeatureMergeable | kFeatureStatus};

}  // namespace

VirtioNet::VirtioNet(const VirtioContext& context, OutputSink& output, uint8_t index,
                     const std::array<uint8_t, 6>& mac, unsigned irq)
    : VirtioPci(context, kIdentity, {{kQueueSize, kChainBytesMax}, {kQueueSize, kChainBytesMax}},
                irq),
      output_(output),
      index_(index),
      mac_(mac) {}

// struct virtio_net_config, 5.1.4.
void VirtioNet::read_device_config(uint64_t offset, std::span<uint8_t> out) const {
  ByteWriter config;
  config.put_bytes(mac_);
  config.put<uint16_t>(1);  // link is up
  config.put<uint16_t>(1);  // queue pairs
  copy_config(config.bytes(), offset, out);
}

void VirtioNet::notified(unsigned index) {
  if (index == kTransmit) {
    transmit();
  } else {
    fill_buffers();
  }
}

void VirtioNet::transmit() {
  Chain chain;
  for (unsigned i = 0; i < kQueueSize && pop(kTransmit, chain); ++i) {
    if (chain.readable_bytes < kHeaderSize) return fail("transmit buffer without a header");
    const uint64_t size = chain.readable_bytes - kHeaderSize;
    if (size >= kFrameMin && size <= kFrameMax) {
      Bytes frame(size);
      gather(memory(), chain.readable, kHeaderSize, frame);
      output_.frame(index_, std::move(frame));
    } else {
      ++frames_dropped_;
    }
    queue(kTransmit).push_used(chain.head, 0);
  }
  if (!running()) return;
  queue(kTransmit).want_notification();
  interrupt_if_wanted(kTransmit);
}

void VirtioNet::receive(ByteSpan frame) {
  const bool fits = frame.size() >= kFrameMin && frame.size() <= kFrameMax;
  if (!fits || !running() || fifo_.size() >= kFifoMax) {
    ++frames_dropped_;
    return;
  }
  fifo_.emplace_back(frame.begin(), frame.end());
  fill_buffers();
}

void VirtioNet::fill_buffers() {
  while (!fifo_.empty() && deliver(fifo_.front())) fifo_.pop_front();
  if (!running() || !queue(kReceive).enabled()) return;
  // With nothing waiting there is no hurry to hear of new buffers.
  if (!fifo_.empty()) queue(kReceive).want_notification();
  interrupt_if_wanted(kReceive);
}

// One buffer, or with mergeable buffers as many as it takes (5.1.6.4).
bool VirtioNet::deliver(const Bytes& frame) {
  const uint64_t total = kHeaderSize + frame.size();
  const bool mergeable = has_feature(kFeatureMergeable);
  std::vector<Chain> chains;
  uint64_t room = 0;
  while (room < total) {
    Chain chain;
    const bool more = chains.size() < (mergeable ? size_t{kQueueSize} : 1);
    if (!more || !pop(kReceive, chain)) {
      queue(kReceive).unpop(static_cast<uint16_t>(chains.size()));
      if (more || failed()) return false;  // waits for buffers, or for a reset
      ++frames_dropped_;                   // the driver's buffer is too small for any frame
      return true;
    }
    if (chain.writable_bytes == 0) return fail("receive buffer that cannot be written"), false;
    room += chain.writable_bytes;
    chains.push_back(std::move(chain));
  }
  Bytes packet(kHeaderSize, 0);
  packet[kNumBuffersAt] = static_cast<uint8_t>(chains.size());
  packet[kNumBuffersAt + 1] = static_cast<uint8_t>(chains.size() >> 8);
  packet.insert(packet.end(), frame.begin(), frame.end());
  ByteSpan rest(packet);
  for (const Chain& chain : chains) {
    const size_t count = std::min<uint64_t>(chain.writable_bytes, rest.size());
    scatter(memory(), chain.writable, 0, rest.first(count));
    queue(kReceive).push_used(chain.head, static_cast<uint32_t>(count));
    rest = rest.subspan(count);
  }
  return true;
}

void VirtioNet::save_device(ByteWriter& out) const {
  out.put(static_cast<uint32_t>(fifo_.size()));
  for (const Bytes& frame : fifo_) out.put_blob(frame);
  out.put(frames_dropped_);
}

void VirtioNet::load_device(ByteReader& in) {
  const auto count = in.get<uint32_t>();
  fifo_.clear();
  if (count > kFifoMax) return in.fail();
  for (uint32_t i = 0; i < count; ++i) {
    fifo_.push_back(in.get_blob());
    if (fifo_.back().size() > kFrameMax) in.fail();
  }
  frames_dropped_ = in.get<uint64_t>();
}

}  // namespace us::hv
