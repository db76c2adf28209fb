// Port I/O. SDM 1 chapter 19. Only the stepper runs these, so the bus may be called at once.
#include "hv/cpu/debug.h"
#include "hv/cpu/system_instructions.h"

namespace us::hv {
namespace {

uint64_t address_mask(const Op& op) {
  if (op.flags & Op::kAddress16) return 0xffff;
  return op.flags & Op::kAddress32 ? 0xffff'ffff : ~uint64_t{0};
}

// Registers of string instructions change at their address size; 32-bit results clear the upper
// half.
void set_masked(uint64_t& reg, uint64_t value, uint64_t mask) {
  reg = mask == 0xffff ? (reg & ~mask) | (value & mask) : value & mask;
}

uint64_t stride(const Cpu& c, unsigned size) {
  return (c.rflags_other & flag::kDf) != 0 ? ~uint64_t{size} + 1 : size;
}

// Iterates `step` as REP says; what was done before a fault stays done.
template <class Step>
bool repeat(Cpu& c, const Op& op, Step step) {
  if ((op.flags & Op::kRep) == 0) return step();
  const uint64_t mask = address_mask(op);
  while ((c.regs[kRcx] & mask) != 0) {
    if (!step()) return false;
    set_masked(c.regs[kRcx], c.regs[kRcx] - 1, mask);
  }
  return true;
}

uint16_t port_of(const Cpu& c, const Op& op) {
  return static_cast<uint16_t>(op.src != 0 ? c.regs[kRdx] : op.imm);
}

}  // namespace

bool io_permitted(Cpu& c, uint16_t port, unsigned size) {
  if ((c.dr7 & 0xff) != 0) watch_port(c, port, size);
  if (!protected_mode(c) || c.cpl <= iopl(c)) return true;
  // SDM 1 19.5.2, SDM 3A figure 8-2: the bitmap's offset is at byte 102 of a 32- or 64-bit TSS.
  constexpr unsigned kMapBase = 102;
  const bool has_map = c.tr.usable() && (c.tr.type() & 8) != 0 && c.tr.limit >= kMapBase + 1;
  if (!has_map) return raise(c, kGeneralProtection, 0);
  uint16_t map;
  if (!read_system(c, c.tr.base + kMapBase, &map, 2)) return false;
  const unsigned byte = map + port / 8u;
  uint16_t bits;
  if (byte + 1 > c.tr.limit) return raise(c, kGeneralProtection, 0);
  if (!read_system(c, c.tr.base + byte, &bits, 2)) return false;
  const unsigned wanted = ((1u << size) - 1) << (port & 7);
  return (bits & wanted) == 0 || raise(c, kGeneralProtection, 0);
}

bool port_in(Cpu& c, const Op& op) {
  const uint16_t port = port_of(c, op);
  if (!io_permitted(c, port, op.extra)) return false;
  const uint32_t value = c.bus.pio_read(port, op.extra);
  if (op.extra == 4) {
    c.regs[kRax] = value;
  } else {
    std::memcpy(&c.regs[kRax], &value, op.extra);
  }
  return true;
}

bool port_out(Cpu& c, const Op& op) {
  const uint16_t port = port_of(c, op);
  if (!io_permitted(c, port, op.extra)) return false;
  uint32_t value = 0;
  std::memcpy(&value, &c.regs[kRax], op.extra);
  c.bus.pio_write(port, op.extra, value);
  return true;
}

bool string_in(Cpu& c, const Op& op) {
  const auto port = static_cast<uint16_t>(c.regs[kRdx]);
  if (!io_permitted(c, port, op.extra)) return false;
  const uint64_t mask = address_mask(op);
  return repeat(c, op, [&] {
    uint64_t linear;
    if (!segment_address(c, kEs, c.regs[kRdi] & mask, op.extra, Access::kWrite, linear) ||
        !probe_write(c, linear, op.extra))
      return false;
    const uint32_t value = c.bus.pio_read(port, op.extra);
    if (!store_slow(c, linear, &value, op.extra)) return false;
    set_masked(c.regs[kRdi], c.regs[kRdi] + stride(c, op.extra), mask);
    return true;
  });
}

bool string_out(Cpu& c, const Op& op) {
  const auto port = static_cast<uint16_t>(c.regs[kRdx]);
  if (!io_permitted(c, port, op.extra)) return false;
  const uint64_t mask = address_mask(op);
  return repeat(c, op, [&] {
    uint64_t linear;
    uint32_t value = 0;
    if (!segment_address(c, static_cast<Seg>(op.seg), c.regs[kRsi] & mask, op.extra, Access::kRead,
                         linear) ||
        !load_slow(c, linear, &value, op.extra))
      return false;
    c.bus.pio_write(port, op.extra, value);
    set_masked(c.regs[kRsi], c.regs[kRsi] + stride(c, op.extra), mask);
    return true;
  });
}

}  // namespace us::hv
