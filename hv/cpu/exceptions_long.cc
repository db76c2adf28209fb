// Delivery in IA-32e mode. SDM 3A 6.14.
#include "hv/cpu/system.h"

namespace us::hv {
namespace {

struct Gate {
  Descriptor d;
  uint64_t offset = 0;
  unsigned ist = 0;
  bool interrupt = false;
};

bool read_gate(Cpu& c, const Event& event, Gate& gate) {
  const uint32_t error = event.vector * 8u | 2u | event.ext();
  if (event.vector * 16u + 15u > c.idtr.limit) return raise(c, kGeneralProtection, error);
  uint64_t both[2];
  if (!read_table(c, c.idtr.base + event.vector * 16u, both)) return false;
  gate.d.low = both[0];
  const unsigned type = gate.d.type();
  if (!gate.d.is_system() || (type != 0xe && type != 0xf) ||
      (event.kind == EventKind::kSoftware && gate.d.dpl() < c.cpl))
    return raise(c, kGeneralProtection, error);
  if (!gate.d.present()) return raise(c, kSegmentNotPresent, error);
  gate.offset = gate.d.gate_offset() | (both[1] << 32);
  gate.ist = (both[0] >> 32) & 7;
  gate.interrupt = type == 0xe;
  return true;
}

bool check_target(Cpu& c, const Event& event, const Gate& gate, Descriptor& code) {
  const uint16_t selector = gate.d.gate_selector();
  const uint32_t error = (selector & 0xfffcu) | event.ext();
  if (is_null(selector)) return raise(c, kGeneralProtection, event.ext());
  if (!read_descriptor(c, selector, code, {.ext = event.ext()})) return false;
  if (!code.is_code() || code.dpl() > c.cpl || !code.is_long() || code.big())
    return raise(c, kGeneralProtection, error);
  if (!code.present()) return raise(c, kSegmentNotPresent, error);
  return canonical(gate.offset) || raise(c, kGeneralProtection, event.ext());
}

// frame[skipped..5]; two fixed sizes, so that the common case is a few plain stores.
bool write_frame(Cpu& c, TlbBank bank, uint64_t rsp, const uint64_t (&frame)[6], unsigned skipped) {
  uint8_t* at = cached_write(c, bank, rsp, (6 - skipped) * 8);
  if (at == nullptr) return write_through(c, bank, rsp, frame + skipped, (6 - skipped) * 8);
  if (skipped == 0) {
    std::memcpy(at, frame, 48);
  } else {
    std::memcpy(at, frame + 1, 40);
  }
  return true;
}

}  // namespace

bool stack_from_tss64(Cpu& c, unsigned slot_offset, uint32_t ext, uint64_t& rsp) {
  if (!c.tr.usable() || slot_offset + 7 > c.tr.limit)
    return raise(c, kInvalidTss, (c.tr.selector & 0xfffcu) | ext);
  if (!read_table(c, c.tr.base + slot_offset, rsp)) return false;
  return canonical(rsp) || raise(c, kStackFault, ext);
}

bool deliver_long(Cpu& c, const Event& event, uint64_t return_rip) {
  Gate gate;
  Descriptor code;
  if (!read_gate(c, event, gate) || !check_target(c, event, gate, code)) return false;
  const unsigned cpl = code.conforming() ? c.cpl : code.dpl();
  const bool inner = cpl < c.cpl;
  uint64_t rsp = c.regs[kRsp];
  // TSS: RSP0-2 from byte 4, IST1-7 from byte 36. SDM 3A 8.7, figure 8-11.
  if (gate.ist != 0) {
    if (!stack_from_tss64(c, 0x1c + 8 * gate.ist, event.ext(), rsp)) return false;
  } else if (inner) {
    if (!stack_from_tss64(c, 4 + 8 * cpl, event.ext(), rsp)) return false;
  }
  rsp &= ~uint64_t{0xf};

  const uint64_t frame[6] = {event.error,           return_rip,   c.seg[kCs].selector,
                             saved_flags(c, event), c.regs[kRsp], c.seg[kSs].selector};
  const unsigned skipped = event.has_error ? 0 : 1;
  const unsigned bytes = (6 - skipped) * 8;
  rsp -= bytes;
  if (!canonical(rsp)) return raise(c, kStackFault, event.ext());
  if (!mark_accessed(c, code)) return false;
  const TlbBank bank = cpl == 3 ? kBankUser : kBankSupervisor;
  if (!write_frame(c, bank, rsp, frame, skipped)) return false;

  c.regs[kRsp] = rsp;
  if (inner)
    c.seg[kSs] = {.access = static_cast<uint16_t>(cpl << 5),
                  .selector = static_cast<uint16_t>(cpl)};
  c.rip = gate.offset;
  enter_handler_flags(c, gate.interrupt);
  install_code(c, code, gate.d.gate_selector(), cpl);
  if (event.vector == kDebug) c.dr7 &= ~(uint64_t{1} << 13);
  return true;
}

}  // namespace us::hv
