// Descriptor tables and descriptors. SDM 3A 3.4.5, 3.5.
#include "hv/cpu/system.h"

namespace us::hv {
namespace {

// Where the descriptor lies; false: outside its table (or no table).
bool locate(const Cpu& c, uint16_t selector, unsigned size, uint64_t& at) {
  const uint32_t offset = selector & 0xfff8;
  if ((selector & 4) == 0) {
    at = c.gdtr.base + offset;
    return offset + size - 1 <= c.gdtr.limit;
  }
  at = c.ldtr.base + offset;
  return c.ldtr.usable() && offset + size - 1 <= c.ldtr.limit;
}

}  // namespace

bool read_descriptor(Cpu& c, uint16_t selector, Descriptor& out, DescriptorFault fault) {
  if (!locate(c, selector, 8, out.at))
    return raise(c, fault.vector, (selector & 0xfffcu) | fault.ext);
  return read_table(c, out.at, out.low);
}

bool read_descriptor16(Cpu& c, uint16_t selector, Descriptor& out) {
  if (!locate(c, selector, 16, out.at)) return raise(c, kGeneralProtection, selector & 0xfffcu);
  uint64_t both[2];
  if (!read_system(c, out.at, both, sizeof both)) return false;
  out.low = both[0];
  out.high = both[1];
  // The upper half must not look like a descriptor of its own. SDM 3A 8.2.3 (figure 8-4).
  if ((out.high >> 40 & 0x1f) != 0) return raise(c, kGeneralProtection, selector & 0xfffcu);
  return true;
}

bool read_descriptor_quietly(Cpu& c, uint16_t selector, Descriptor& out, bool& ok) {
  ok = !is_null(selector) && locate(c, selector, 8, out.at);
  return !ok || read_table(c, out.at, out.low);
}

Segment segment_from(const Descriptor& d, uint16_t selector) {
  Segment s;
  s.base = ((d.low >> 16) & 0xff'ffff) | ((d.low >> 32) & 0xff00'0000);
  s.limit = static_cast<uint32_t>((d.low & 0xffff) | ((d.low >> 32) & 0xf'0000));
  s.access = static_cast<uint16_t>((d.low >> 40) & 0xf0ff);
  if (s.access & Segment::kGranular) s.limit = (s.limit << 12) | 0xfff;
  s.selector = selector;
  return s;
}

bool mark_accessed(Cpu& c, Descriptor& d) {
  constexpr uint64_t kAccessedBit = uint64_t{1} << 40;
  if ((d.low & kAccessedBit) != 0) return true;
  d.low |= kAccessedBit;
  const auto byte = static_cast<uint8_t>(d.low >> 40);
  return write_system(c, d.at + 5, &byte, 1);
}

Segment flat_segment(uint16_t selector, uint16_t access) {
  Segment s;
  s.limit = 0xffff'ffff;
  s.access = access;
  s.selector = selector;
  return s;
}

}  // namespace us::hv
