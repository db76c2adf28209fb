#include "hv/devices/virtio_console.h"

#include <algorithm>

namespace us::hv {

namespace {

constexpr unsigned kReceive = 0, kTransmit = 1;
constexpr uint64_t kChainBytesMax = 1 << 20;
constexpr VirtioIdentity kIdentity = {.type = 3, .class_code = 0x07'8000, .features = 0};

}  // namespace

VirtioConsole::VirtioConsole(const VirtioContext& context, OutputSink& output, uint8_t index,
                             unsigned irq)
    : VirtioPci(context, kIdentity, {{kQueueSize, kChainBytesMax}, {kQueueSize, kChainBytesMax}},
                irq),
      output_(output),
      index_(index) {}

void VirtioConsole::notified(unsigned index) {
  if (index == kTransmit) {
    transmit();
  } else {
    fill_buffers();
  }
}

void VirtioConsole::transmit() {
  Chain chain;
  for (unsigned i = 0; i < kQueueSize && pop(kTransmit, chain); ++i) {
    Bytes bytes(chain.readable_bytes);
    gather(memory(), chain.readable, 0, bytes);
    if (!bytes.empty()) output_.console(index_, bytes);
    queue(kTransmit).push_used(chain.head, 0);
  }
  if (!running()) return;
  queue(kTransmit).want_notification();
  interrupt_if_wanted(kTransmit);
}

size_t VirtioConsole::receive(ByteSpan bytes) {
  const size_t taken = std::min(bytes.size(), kQueueMax - waiting_.size());
  waiting_.insert(waiting_.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(taken));
  if (running()) fill_buffers();
  return bytes.size() - taken;
}

void VirtioConsole::fill_buffers() {
  if (!queue(kReceive).enabled()) return;
  Chain chain;
  while (!waiting_.empty() && pop(kReceive, chain)) {
    if (chain.writable_bytes == 0) return fail("console buffer that cannot be written");
    const size_t count = std::min<uint64_t>(chain.writable_bytes, waiting_.size());
    const auto end = waiting_.begin() + static_cast<ptrdiff_t>(count);
    scatter(memory(), chain.writable, 0, Bytes(waiting_.begin(), end));
    waiting_.erase(waiting_.begin(), end);
    queue(kReceive).push_used(chain.head, static_cast<uint32_t>(count));
  }
  if (!running()) return;
  if (!waiting_.empty()) queue(kReceive).want_notification();
  interrupt_if_wanted(kReceive);
}

void VirtioConsole::save_device(ByteWriter& out) const {
  out.put_blob(Bytes(waiting_.begin(), waiting_.end()));
}

void VirtioConsole::load_device(ByteReader& in) {
  const Bytes waiting = in.get_blob();
  if (waiting.size() > kQueueMax) in.fail();
  waiting_.assign(waiting.begin(), waiting.end());
}

}  // namespace us::hv
