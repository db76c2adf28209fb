#include "hv/devices/pit.h"

namespace us::hv {

namespace {

uint64_t from_bcd(uint16_t value) {
  uint64_t result = 0;
  for (int digit = 3; digit >= 0; --digit) result = result * 10 + ((value >> (4 * digit)) & 15);
  return result;
}

uint16_t to_bcd(uint64_t value) {
  uint16_t result = 0;
  for (unsigned digit = 0; digit < 4; ++digit, value /= 10)
    result |= static_cast<uint16_t>((value % 10) << (4 * digit));
  return result;
}

}  // namespace

// Modes 6 and 7 are 2 and 3 (8254 data sheet, control word format).
unsigned Pit::Channel::mode() const {
  const unsigned mode = (control >> 1) & 7;
  return mode > 5 ? mode - 4 : mode;
}

uint64_t Pit::Channel::period() const {
  if ((control & 1) != 0) {
    const uint64_t value = from_bcd(reload);
    return value == 0 ? 10'000 : value;
  }
  return reload == 0 ? 0x1'0000 : reload;
}

uint64_t Pit::Channel::elapsed(GuestTsc now) const {
  return before + (running ? scale_ticks(now.value - start.value, kHz, kTscHz) : 0);
}

uint16_t Pit::Channel::count(GuestTsc now) const {
  const uint64_t clocks = elapsed(now);
  const uint64_t n = period();
  uint64_t value = 0;
  switch (mode()) {
    case 2: value = n - clocks % n; break;
    case 3: value = (n - (2 * clocks) % n) & ~1ull; break;
    default: value = n - clocks; break;  // goes on below zero, wrapping
  }
  if ((control & 1) != 0) {
    const int64_t rest = static_cast<int64_t>(value) % 10'000;
    return to_bcd(static_cast<uint64_t>(rest < 0 ? rest + 10'000 : rest));
  }
  return static_cast<uint16_t>(value);
}

bool Pit::Channel::output(GuestTsc now) const {
  const uint64_t clocks = elapsed(now);
  const uint64_t n = period();
  switch (mode()) {
    case 0:
    case 1: return loaded && clocks >= n;
    case 2: return !loaded || clocks % n != n - 1;
    case 3: return !loaded || clocks % n < (n + 1) / 2;
    default: return !loaded || clocks != n;
  }
}

void Pit::Channel::load_count(uint16_t value, GuestTsc now) {
  reload = value;
  loaded = true;
  before = 0;
  start = now;
  // Modes 1 and 5 wait for the gate's edge; the others count while the gate is high.
  running = gate && mode() != 1 && mode() != 5;
}

void Pit::Channel::set_gate(bool level, GuestTsc now) {
  if (level == gate) return;
  if (!level) {
    gate = false;
    if (mode() == 1 || mode() == 5) return;  // these count on
    before = elapsed(now);
    running = false;
    return;
  }
  gate = true;
  if (!loaded) return;
  if (mode() != 0 && mode() != 4) before = 0;  // a rising gate starts these anew
  start = now;
  running = true;
}

void Pit::latch_count(Channel& channel, GuestTsc now) {
  if (channel.latched_bytes != 0) return;  // the first latch stays until read
  channel.latch = channel.count(now);
  channel.latched_bytes = channel.access() == 3 ? 2 : 1;
  if (channel.access() == 2) channel.latch >>= 8;
}

void Pit::write_control(uint8_t value, GuestTsc now) {
  const unsigned index = value >> 6;
  if (index == 3) {  // read-back: bit 5 clear latches counts, bit 4 clear latches status
    for (unsigned i = 0; i < 3; ++i) {
      Channel& channel = channels_[i];
      if (((value >> (i + 1)) & 1) == 0) continue;
      if ((value & 0x20) == 0) latch_count(channel, now);
      if ((value & 0x10) == 0 && !channel.status_latched) {
        channel.status_latched = true;
        channel.status = static_cast<uint8_t>((channel.output(now) ? 0x80 : 0) |
                                              (channel.loaded ? 0 : 0x40) | channel.control);
      }
    }
    return;
  }
  Channel& channel = channels_[index];
  if ((value & 0x30) == 0) return latch_count(channel, now);
  channel.control = value & 0x3f;
  channel.loaded = channel.running = false;
  channel.write_high = channel.read_high = false;
  channel.latched_bytes = 0;
  channel.status_latched = false;
  channel.before = 0;
  if (index == 0) {
    edges_ = 0;
    rearm();
    irq_.set(channel.output(now));
  }
}

void Pit::write_channel(unsigned index, uint8_t value, GuestTsc now) {
  Channel& channel = channels_[index];
  uint16_t count = value;
  if (channel.access() == 2) count = static_cast<uint16_t>(value << 8);
  if (channel.access() == 3) {
    channel.write_high = !channel.write_high;
    if (channel.write_high) {
      channel.low_byte = value;
      return;
    }
    count = static_cast<uint16_t>(value << 8 | channel.low_byte);
  }
  channel.load_count(count, now);
  if (index != 0) return;
  edges_ = 0;
  irq_.set(channel.output(now));
  rearm();
}

uint8_t Pit::read_channel(Channel& channel, GuestTsc now) {
  if (channel.status_latched) {
    channel.status_latched = false;
    return channel.status;
  }
  if (channel.latched_bytes != 0) {
    const auto byte = static_cast<uint8_t>(channel.latch);
    channel.latch >>= 8;
    --channel.latched_bytes;
    return byte;
  }
  const uint16_t count = channel.count(now);
  if (channel.access() == 2) return static_cast<uint8_t>(count >> 8);
  if (channel.access() == 1) return static_cast<uint8_t>(count);
  channel.read_high = !channel.read_high;
  return static_cast<uint8_t>(channel.read_high ? count : count >> 8);
}

uint32_t Pit::pio_read(uint16_t port, unsigned) {
  const GuestTsc now = time_.now();
  advance(now);
  if (port >= 0x40 && port <= 0x42) return read_channel(channels_[port - 0x40], now);
  if (port != 0x61) return 0xff;  // the control word cannot be read
  const Channel& speaker = channels_[2];
  // Bit 4 toggles with each refresh request, every 15.085 us. PIIX3 4.3.
  const bool refresh = (scale_ticks(now.value, kHz, kTscHz) / 18) & 1;
  return static_cast<uint32_t>((speaker.gate ? 1 : 0) | (speaker_ ? 2 : 0) | (refresh ? 0x10 : 0) |
                               (speaker.output(now) ? 0x20 : 0));
}

void Pit::pio_write(uint16_t port, unsigned, uint32_t value) {
  const GuestTsc now = time_.now();
  advance(now);
  const auto byte = static_cast<uint8_t>(value);
  if (port >= 0x40 && port <= 0x42) return write_channel(port - 0x40u, byte, now);
  if (port == 0x43) return write_control(byte, now);
  if (port == 0x61) {
    speaker_ = (byte & 2) != 0;
    channels_[2].set_gate((byte & 1) != 0, now);
  }
}

// Channel 0's output rises at clock N in mode 0, N + 1 in mode 4 and at every multiple of N in
// modes 2 and 3. Its gate is tied high, so modes 1 and 5 never start.
void Pit::rearm() {
  deadline_.reset();
  const Channel& channel = channels_[0];
  if (!channel.running) return;
  uint64_t clocks = 0;
  switch (channel.mode()) {
    case 0:
      if (edges_ == 0) clocks = channel.period();
      break;
    case 4:
      if (edges_ == 0) clocks = channel.period() + 1;
      break;
    default: clocks = (edges_ + 1) * channel.period(); break;
  }
  if (clocks != 0) deadline_ = channel.start + scale_ticks_up(clocks, kTscHz, kHz);
}

// Edges that passed at once give one interrupt: the 8259 would remember only one.
void Pit::advance(GuestTsc now) {
  if (!deadline_ || now < *deadline_) return;
  const Channel& channel = channels_[0];
  const bool periodic = channel.mode() == 2 || channel.mode() == 3;
  edges_ = periodic ? channel.elapsed(now) / channel.period() : 1;
  rearm();
  irq_.pulse();
}

void Pit::Channel::save(ByteWriter& out) const {
  out.put(control);
  for (bool flag : {gate, loaded, running, write_high, read_high, status_latched})
    out.put(static_cast<uint8_t>(flag));
  out.put(reload);
  out.put(low_byte);
  out.put(latched_bytes);
  out.put(latch);
  out.put(status);
  out.put(start.value);
  out.put(before);
}

void Pit::Channel::load(ByteReader& in) {
  control = in.get<uint8_t>() & 0x3f;
  for (bool* flag : {&gate, &loaded, &running, &write_high, &read_high, &status_latched})
    *flag = in.get<uint8_t>() != 0;
  reload = in.get<uint16_t>();
  low_byte = in.get<uint8_t>();
  latched_bytes = in.get<uint8_t>();
  if (latched_bytes > 2) in.fail();
  latch = in.get<uint16_t>();
  status = in.get<uint8_t>();
  start = GuestTsc(in.get<uint64_t>());
  before = in.get<uint64_t>();
}

void Pit::save(ByteWriter& out) const {
  for (const Channel& channel : channels_) channel.save(out);
  out.put(static_cast<uint8_t>(speaker_));
  out.put(edges_);
}

void Pit::load(ByteReader& in) {
  for (Channel& channel : channels_) channel.load(in);
  speaker_ = in.get<uint8_t>() != 0;
  edges_ = in.get<uint64_t>();
  rearm();
}

}  // namespace us::hv
