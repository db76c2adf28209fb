// The two cascaded 8259A interrupt controllers of a PC, with the edge/level registers of later
// chipsets. Source: Intel 8259A data sheet (231468); PIIX3 data sheet 4.2 for the ELCR.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "hv/devices/device.h"

namespace us::hv {

class Pic final : public PioDevice {
 public:
  // Ports: 0x20-0x21, 0xa0-0xa1, 0x4d0-0x4d1.
  uint32_t pio_read(uint16_t port, unsigned size) override;
  void pio_write(uint16_t port, unsigned size, uint32_t value) override;

  void set_irq(unsigned irq, bool level);
  // The INT pin of the first chip.
  bool output() const { return chips_[0].pending() >= 0; }
  // The processor's INTA cycle: the vector, a spurious 7 or 15 when the request went away.
  uint8_t acknowledge();

  void save(ByteWriter& out) const override;
  void load(ByteReader& in) override;
  std::string dump() const;

 private:
  struct Chip {
    uint8_t irr = 0;    // requests; in level mode they follow the line
    uint8_t lines = 0;  // input levels
    uint8_t imr = 0;
    uint8_t isr = 0;
    uint8_t elcr = 0;       // a bit set: that input is level triggered
    uint8_t base = 0;       // ICW2
    uint8_t lowest = 7;     // the input of lowest priority (rotation)
    uint8_t init_step = 0;  // ICW expected next: 0 none, else 2 to 4
    bool wants_icw4 = false;
    bool single = false;
    bool auto_eoi = false;
    bool rotate_on_auto_eoi = false;
    bool special_mask = false;
    bool fully_nested_special = false;
    bool read_isr = false;
    bool poll = false;
    bool is_master = false;

    int pending() const;  // the input to serve, -1 for none
    int first_by_priority(uint8_t bits) const;
    unsigned rank(unsigned input) const { return (input - lowest - 1u) & 7; }
    void set_line(unsigned input, bool level);
    void take(unsigned input);  // INTA for this input
    void write_command(uint8_t value);
    void write_data(uint8_t value);
    void write_icw1(uint8_t value);
    void write_ocw2(uint8_t value);
    void save(ByteWriter& out) const;
    void load(ByteReader& in);
  };

  uint8_t read_chip(unsigned index, bool data);
  void cascade() { chips_[0].set_line(2, chips_[1].pending() >= 0); }

  std::array<Chip, 2> chips_ = {Chip{.is_master = true}, Chip{}};
};

}  // namespace us::hv
