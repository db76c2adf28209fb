#include "hv/devices/pic.h"

namespace us::hv {

namespace {

// Inputs that cannot be level triggered: timer, keyboard, cascade; RTC and FPU. PIIX3 4.2.1.
constexpr uint8_t kElcrWritable[] = {0xf8, 0xde};

constexpr unsigned kCascade = 2;

}  // namespace

// The input of highest priority among `bits`, -1 when empty.
int Pic::Chip::first_by_priority(uint8_t bits) const {
  if (bits == 0) return -1;
  for (unsigned i = 1; i <= 8; ++i) {
    const unsigned input = (lowest + i) & 7;
    if ((bits >> input) & 1) return static_cast<int>(input);
  }
  return -1;
}

int Pic::Chip::pending() const {
  const int request = first_by_priority(irr & static_cast<uint8_t>(~imr));
  if (request < 0) return -1;
  uint8_t blocking = isr;
  // Special mask mode: masked inputs in service block nobody.
  if (special_mask) blocking &= static_cast<uint8_t>(~imr);
  // Special fully nested mode: the slave may interrupt itself with a higher request.
  if (fully_nested_special && is_master) blocking &= static_cast<uint8_t>(~(1u << kCascade));
  const int serving = first_by_priority(blocking);
  if (serving >= 0 && rank(static_cast<unsigned>(request)) >= rank(static_cast<unsigned>(serving)))
    return -1;
  return request;
}

void Pic::Chip::set_line(unsigned input, bool level) {
  const auto bit = static_cast<uint8_t>(1u << input);
  const bool was = (lines & bit) != 0;
  if (level) {
    lines |= bit;
    if ((elcr & bit) != 0 || !was) irr |= bit;
  } else {
    lines &= static_cast<uint8_t>(~bit);
    // An edge request is withdrawn with its line, too: the data sheet asks for the level to be
    // held until INTA.
    irr &= static_cast<uint8_t>(~bit);
  }
}

void Pic::Chip::take(unsigned input) {
  const auto bit = static_cast<uint8_t>(1u << input);
  if ((elcr & bit) == 0) irr &= static_cast<uint8_t>(~bit);
  if (!auto_eoi) {
    isr |= bit;
  } else if (rotate_on_auto_eoi) {
    lowest = static_cast<uint8_t>(input);
  }
}

void Pic::Chip::write_icw1(uint8_t value) {
  irr = lines & elcr;
  imr = isr = 0;
  lowest = 7;
  auto_eoi = rotate_on_auto_eoi = special_mask = fully_nested_special = false;
  read_isr = poll = false;
  single = (value & 2) != 0;
  wants_icw4 = (value & 1) != 0;
  init_step = 2;
}

void Pic::Chip::write_ocw2(uint8_t value) {
  const bool specific = (value & 0x40) != 0;
  const bool eoi = (value & 0x20) != 0;
  const bool rotate = (value & 0x80) != 0;
  if (!eoi) {
    if (specific && rotate) lowest = value & 7;  // set priority
    if (!specific) rotate_on_auto_eoi = rotate;  // rotate in automatic EOI mode
    return;
  }
  const int input = specific ? value & 7 : first_by_priority(isr);
  if (input < 0) return;
  isr &= static_cast<uint8_t>(~(1u << input));
  if (rotate) lowest = static_cast<uint8_t>(input);
}

void Pic::Chip::write_command(uint8_t value) {
  if ((value & 0x10) != 0) return write_icw1(value);
  if ((value & 0x08) == 0) return write_ocw2(value);
  if ((value & 0x04) != 0) poll = true;  // OCW3
  if ((value & 0x02) != 0) read_isr = (value & 1) != 0;
  if ((value & 0x40) != 0) special_mask = (value & 0x20) != 0;
}

void Pic::Chip::write_data(uint8_t value) {
  switch (init_step) {
    case 0: imr = value; break;
    case 2:
      base = value & 0xf8;
      init_step = single ? (wants_icw4 ? 4 : 0) : 3;
      break;
    case 3:  // the wiring of the cascade is fixed
      init_step = wants_icw4 ? 4 : 0;
      break;
    default:
      fully_nested_special = (value & 0x10) != 0;
      auto_eoi = (value & 0x02) != 0;
      init_step = 0;
      break;
  }
}

uint8_t Pic::read_chip(unsigned index, bool data) {
  Chip& chip = chips_[index];
  if (chip.poll) {
    chip.poll = false;
    const int input = chip.pending();
    if (input < 0) return 0;
    chip.take(static_cast<unsigned>(input));
    cascade();
    return static_cast<uint8_t>(0x80 | input);
  }
  if (data) return chip.imr;
  return chip.read_isr ? chip.isr : chip.irr;
}

uint32_t Pic::pio_read(uint16_t port, unsigned) {
  switch (port) {
    case 0x20:
    case 0x21: return read_chip(0, port & 1);
    case 0xa0:
    case 0xa1: return read_chip(1, port & 1);
    case 0x4d0:
    case 0x4d1: return chips_[port & 1].elcr;
    default: return 0xff;
  }
}

void Pic::pio_write(uint16_t port, unsigned, uint32_t value) {
  const auto byte = static_cast<uint8_t>(value);
  switch (port) {
    case 0x20: chips_[0].write_command(byte); break;
    case 0x21: chips_[0].write_data(byte); break;
    case 0xa0: chips_[1].write_command(byte); break;
    case 0xa1: chips_[1].write_data(byte); break;
    case 0x4d0:
    case 0x4d1: {
      Chip& chip = chips_[port & 1];
      chip.elcr = byte & kElcrWritable[port & 1];
      chip.irr |= chip.lines & chip.elcr;
      break;
    }
    default: break;
  }
  cascade();
}

void Pic::set_irq(unsigned irq, bool level) {
  if (irq >= 16 || irq == kCascade) return;
  chips_[irq >> 3].set_line(irq & 7, level);
  cascade();
}

uint8_t Pic::acknowledge() {
  const int input = chips_[0].pending();
  if (input < 0) return static_cast<uint8_t>(chips_[0].base + 7);  // spurious
  chips_[0].take(static_cast<unsigned>(input));
  if (input != static_cast<int>(kCascade)) return static_cast<uint8_t>(chips_[0].base + input);
  const int slave = chips_[1].pending();
  if (slave >= 0) chips_[1].take(static_cast<unsigned>(slave));
  const auto vector = static_cast<uint8_t>(chips_[1].base + (slave < 0 ? 7 : slave));
  // The cascade line drops during INTA, so that a further request is an edge again.
  chips_[0].set_line(kCascade, false);
  cascade();
  return vector;
}

void Pic::Chip::save(ByteWriter& out) const {
  for (uint8_t byte : {irr, lines, imr, isr, elcr, base, lowest, init_step}) out.put(byte);
  uint16_t flags = 0;
  unsigned at = 0;
  for (bool flag : {wants_icw4, single, auto_eoi, rotate_on_auto_eoi, special_mask,
                    fully_nested_special, read_isr, poll}) {
    flags |= static_cast<uint16_t>(flag ? 1u << at : 0);
    ++at;
  }
  out.put(flags);
}

void Pic::Chip::load(ByteReader& in) {
  for (uint8_t* byte : {&irr, &lines, &imr, &isr, &elcr, &base, &lowest, &init_step})
    *byte = in.get<uint8_t>();
  lowest &= 7;
  if (init_step > 4 || init_step == 1) in.fail();
  const auto flags = in.get<uint16_t>();
  unsigned at = 0;
  for (bool* flag : {&wants_icw4, &single, &auto_eoi, &rotate_on_auto_eoi, &special_mask,
                     &fully_nested_special, &read_isr, &poll}) {
    *flag = (flags >> at) & 1;
    ++at;
  }
}

void Pic::save(ByteWriter& out) const {
  for (const Chip& chip : chips_) chip.save(out);
}

void Pic::load(ByteReader& in) {
  for (Chip& chip : chips_) chip.load(in);
}

}  // namespace us::hv
