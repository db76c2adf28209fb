#include "hv/devices/virtio_block.h"

#include <algorithm>
#include <cstring>

namespace us::hv {

namespace {

constexpr uint64_t kSector = 512;

// Feature bits, 5.2.3.
constexpr uint64_t kFeatureSizeMax = 1u << 1;
constexpr uint64_t kFeatureSegMax = 1u << 2;
constexpr uint64_t kFeatureGeometry = 1u << 4;
constexpr uint64_t kFeatureReadOnly = 1u << 5;
constexpr uint64_t kFeatureBlockSize = 1u << 6;
constexpr uint64_t kFeatureFlush = 1u << 9;
constexpr uint64_t kFeatureDiscard = 1u << 13;
constexpr uint64_t kFeatureWriteZeroes = 1u << 14;

// Request types and status codes, 5.2.6.
constexpr uint32_t kTypeIn = 0, kTypeOut = 1, kTypeFlush = 4, kTypeGetId = 8, kTypeDiscard = 11,
                   kTypeWriteZeroes = 13;
constexpr uint8_t kOk = 0, kIoError = 1, kUnsupported = 2;
constexpr size_t kHeaderSize = 16;
constexpr size_t kIdSize = 20;
constexpr size_t kRangeSize = 16;
constexpr uint32_t kRangeSectorsMax = 1u << 22;  // 2 GiB in one discard

VirtioIdentity identity_of(const DiskConfig& config) {
  uint64_t features =
      kFeatureSizeMax | kFeatureSegMax | kFeatureGeometry | kFeatureBlockSize | kFeatureFlush;
  features |= config.read_only ? kFeatureReadOnly : kFeatureDiscard | kFeatureWriteZeroes;
  return {.type = 2, .class_code = 0x01'8000, .features = features};
}

}  // namespace

VirtioBlock::VirtioBlock(const VirtioContext& context, OutputSink& output, uint8_t index,
                         const DiskConfig& config, unsigned irq)
    : VirtioPci(context, identity_of(config), {{kQueueSize, kRequestBytesMax + kSector}}, irq),
      output_(output),
      index_(index),
      sectors_(config.size_bytes / kSector),
      read_only_(config.read_only),
      serial_(config.serial) {}

// struct virtio_blk_config, 5.2.4.
void VirtioBlock::read_device_config(uint64_t offset, std::span<uint8_t> out) const {
  ByteWriter config;
  config.put(sectors_);
  config.put(kSegmentBytesMax);
  config.put(kSegmentsMax);
  config.put(static_cast<uint16_t>(std::min<uint64_t>(sectors_ / (16 * 63), 0xffff)));
  config.put<uint8_t>(16);  // heads
  config.put<uint8_t>(63);  // sectors a track
  config.put(static_cast<uint32_t>(kSector));
  config.put<uint64_t>(0);  // topology: not offered
  config.put<uint8_t>(1);   // writeback
  config.put<uint8_t>(0);
  config.put<uint16_t>(1);  // queues
  config.put(kRangeSectorsMax);
  config.put<uint32_t>(1);  // discard segments a request
  config.put<uint32_t>(1);  // discard alignment
  config.put(kRangeSectorsMax);
  config.put<uint32_t>(1);  // write zeroes segments a request
  config.put<uint32_t>(1);  // may unmap; padding
  copy_config(config.bytes(), offset, out);
}

void VirtioBlock::notified(unsigned) { drain(); }

void VirtioBlock::drain() {
  Chain chain;
  for (unsigned i = 0; i < kQueueSize; ++i) {
    if (in_flight_bytes_ >= kInFlightBytesMax || in_flight_.size() >= kInFlightMax) break;
    if (!pop(0, chain)) break;
    handle(chain);
  }
  if (!running()) return;
  queue(0).want_notification();
  interrupt_if_wanted(0);
}

// A request is a header, data either way, and a status byte at the very end (5.2.6).
void VirtioBlock::handle(const Chain& chain) {
  uint8_t header[kHeaderSize];
  if (chain.readable_bytes < kHeaderSize || chain.writable_bytes < 1)
    return fail("disk request without header or status");
  gather(memory(), chain.readable, 0, header);
  const Segment& last = chain.writable.back();
  InFlight flight;
  flight.head = chain.head;
  flight.status = last.address + (last.length - 1);
  uint32_t type = 0;
  uint64_t sector = 0;
  std::memcpy(&type, header, 4);
  std::memcpy(&sector, header + 8, 8);
  switch (type) {
    case kTypeIn: flight.request.op = DiskOp::kRead; return read_or_write(chain, flight, sector);
    case kTypeOut: flight.request.op = DiskOp::kWrite; return read_or_write(chain, flight, sector);
    case kTypeFlush: flight.request.op = DiskOp::kFlush; return submit(flight);
    case kTypeDiscard: flight.request.op = DiskOp::kDiscard; return discard_or_zero(chain, flight);
    case kTypeWriteZeroes:
      flight.request.op = DiskOp::kWriteZeroes;
      return discard_or_zero(chain, flight);
    case kTypeGetId: return get_id(chain, flight.status);
    default: return finish(chain.head, flight.status, kUnsupported, 0);
  }
}

void VirtioBlock::read_or_write(const Chain& chain, InFlight& flight, uint64_t sector) {
  const bool write = flight.request.op == DiskOp::kWrite;
  const uint64_t length = write ? chain.readable_bytes - kHeaderSize : chain.writable_bytes - 1;
  const bool bad = length == 0 || length % kSector != 0 || !in_range(sector, length / kSector);
  if (bad || (write && read_only_)) return finish(chain.head, flight.status, kIoError, 0);
  flight.request.offset = sector * kSector;
  flight.request.length = length;
  if (write) {
    flight.request.data.resize(length);
    gather(memory(), chain.readable, kHeaderSize, flight.request.data);
  } else {
    flight.into = chain.writable;
    if (--flight.into.back().length == 0) flight.into.pop_back();  // the status byte
  }
  submit(flight);
}

// One range a request, as the configuration says.
void VirtioBlock::discard_or_zero(const Chain& chain, InFlight& flight) {
  if (read_only_) return finish(chain.head, flight.status, kUnsupported, 0);
  if (chain.readable_bytes != kHeaderSize + kRangeSize)
    return finish(chain.head, flight.status, kIoError, 0);
  uint8_t range[kRangeSize];
  gather(memory(), chain.readable, kHeaderSize, range);
  uint64_t sector = 0;
  uint32_t count = 0, flags = 0;
  std::memcpy(&sector, range, 8);
  std::memcpy(&count, range + 8, 4);
  std::memcpy(&flags, range + 12, 4);
  const uint32_t allowed = flight.request.op == DiskOp::kWriteZeroes ? 1 : 0;  // unmap
  if ((flags & ~allowed) != 0) return finish(chain.head, flight.status, kUnsupported, 0);
  if (count == 0 || count > kRangeSectorsMax || !in_range(sector, count))
    return finish(chain.head, flight.status, kIoError, 0);
  flight.request.offset = sector * kSector;
  flight.request.length = count * kSector;
  submit(flight);
}

void VirtioBlock::get_id(const Chain& chain, GuestPhys status) {
  uint8_t id[kIdSize] = {};
  std::memcpy(id, serial_.data(), std::min(serial_.size(), kIdSize));
  if (chain.writable_bytes < kIdSize + 1) return finish(chain.head, status, kIoError, 0);
  scatter(memory(), chain.writable, 0, id);
  finish(chain.head, status, kOk, kIdSize);
}

void VirtioBlock::submit(InFlight& flight) {
  flight.request.device = index_;
  flight.request.request = next_request_++;
  const bool moves_data = flight.request.op == DiskOp::kRead || flight.request.op == DiskOp::kWrite;
  if (moves_data) in_flight_bytes_ += flight.request.length;
  DiskRequest request = flight.request;
  in_flight_.emplace(request.request, std::move(flight));
  output_.disk(std::move(request));
}

void VirtioBlock::finish(uint16_t head, GuestPhys status, uint8_t code, uint32_t data_bytes) {
  memory().write(status, ByteSpan(&code, 1));
  queue(0).push_used(head, data_bytes + 1);
}

void VirtioBlock::done(const DiskDoneInput& input) {
  const auto found = in_flight_.find(input.request);
  if (found == in_flight_.end()) return;
  const InFlight flight = std::move(found->second);
  in_flight_.erase(found);
  const DiskRequest& request = flight.request;
  const bool read = request.op == DiskOp::kRead;
  if (read || request.op == DiskOp::kWrite) in_flight_bytes_ -= request.length;
  if (!flight.orphan && running()) {
    const bool ok = input.ok && (!read || input.data.size() == request.length);
    if (ok && read) scatter(memory(), flight.into, 0, input.data);
    finish(flight.head, flight.status, ok ? kOk : kIoError,
           ok && read ? static_cast<uint32_t>(request.length) : 0);
  }
  if (running() && queue(0).enabled()) drain();
}

std::vector<DiskRequest> VirtioBlock::in_flight() const {
  std::vector<DiskRequest> requests;
  for (const auto& [id, flight] : in_flight_) requests.push_back(flight.request);
  return requests;
}

void VirtioBlock::device_reset() {
  for (auto& [id, flight] : in_flight_) flight.orphan = true;
}

void VirtioBlock::save_device(ByteWriter& out) const {
  out.put(next_request_);
  out.put(static_cast<uint32_t>(in_flight_.size()));
  for (const auto& [id, flight] : in_flight_) {
    out.put(id);
    out.put(flight.head);
    out.put(static_cast<uint8_t>(flight.orphan));
    out.put(flight.status.value);
    out.put(static_cast<uint32_t>(flight.into.size()));
    for (const Segment& segment : flight.into) {
      out.put(segment.address.value);
      out.put(segment.length);
    }
    out.put(flight.request.op);
    out.put(flight.request.offset);
    out.put(flight.request.length);
    out.put_blob(flight.request.data);
  }
}

void VirtioBlock::load_device(ByteReader& in) {
  next_request_ = in.get<uint32_t>();
  const auto count = in.get<uint32_t>();
  in_flight_.clear();
  in_flight_bytes_ = 0;
  if (count > kInFlightMax) return in.fail();
  for (uint32_t i = 0; i < count && !in.failed(); ++i) {
    InFlight flight;
    const auto id = in.get<uint32_t>();
    flight.head = in.get<uint16_t>();
    flight.orphan = in.get<uint8_t>() != 0;
    flight.status = GuestPhys(in.get<uint64_t>());
    const auto segments = in.get<uint32_t>();
    if (segments > kQueueSize) return in.fail();
    for (uint32_t s = 0; s < segments; ++s) {
      Segment segment;
      segment.address = GuestPhys(in.get<uint64_t>());
      segment.length = in.get<uint32_t>();
      if (!memory().contains(segment.address, segment.length)) in.fail();
      flight.into.push_back(segment);
    }
    flight.request.device = index_;
    flight.request.request = id;
    flight.request.op = in.get<DiskOp>();
    flight.request.offset = in.get<uint64_t>();
    flight.request.length = in.get<uint64_t>();
    flight.request.data = in.get_blob();
    if (flight.request.op > DiskOp::kWriteZeroes) in.fail();
    if (flight.request.op <= DiskOp::kWrite) in_flight_bytes_ += flight.request.length;
    in_flight_.emplace(id, std::move(flight));
  }
}

}  // namespace us::hv
