// Segment registers: loads with all their checks, and addresses through them. SDM 3A 3.4, 5.
#include "hv/cpu/system.h"

namespace us::hv {
namespace {

uint32_t code_of(uint16_t selector) { return selector & 0xfffcu; }

void load_real(Cpu& c, Seg which, uint16_t selector) {
  Segment& s = c.seg[which];
  s.selector = selector;
  s.base = uint64_t{selector} << 4;
  // The limit stays as it was; a segment left by protected mode becomes usable again.
  if (!s.usable()) s.limit = 0xffff;
  s.access = static_cast<uint16_t>((s.access & Segment::kBig) | Segment::kPresent | Segment::kS |
                                   Segment::kWritable | Segment::kAccessed);
}

bool load_null(Cpu& c, Seg which, uint16_t selector) {
  if (which == kSs) {
    // SDM 2B "MOV": only 64-bit mode below ring 3 may have no stack segment.
    if (!c.mode.is64() || c.cpl == 3 || rpl_of(selector) != c.cpl)
      return raise(c, kGeneralProtection, 0);
    c.seg[kSs] = {.selector = selector};
    c.seg[kSs].access = static_cast<uint16_t>(c.cpl << 5);
    return true;
  }
  // Loading a null selector zeroes the base, as current Intel processors do.
  c.seg[which] = {.selector = selector};
  return true;
}

bool check_data_segment(Cpu& c, uint16_t selector, Descriptor& d) {
  if (!read_descriptor(c, selector, d)) return false;
  const unsigned weakest = rpl_of(selector) > c.cpl ? rpl_of(selector) : c.cpl;
  if (d.is_system() || !d.readable() || (!d.conforming() && d.dpl() < weakest))
    return raise(c, kGeneralProtection, code_of(selector));
  return d.present() || raise(c, kSegmentNotPresent, code_of(selector));
}

bool in_limits(const Segment& s, uint64_t offset, unsigned size) {
  const uint64_t last = offset + size - 1;
  const bool down = (s.access & Segment::kCode) == 0 && (s.access & Segment::kExpandDown) != 0;
  if (!down) return last <= s.limit;
  return offset > s.limit && last <= (s.big() ? 0xffff'ffff : 0xffff);
}

bool rights_suit(const Segment& s, Access access) {
  if (!s.usable()) return false;
  const bool code = (s.access & Segment::kCode) != 0;
  if (access == Access::kWrite) return !code && (s.access & Segment::kWritable) != 0;
  return !code || (s.access & Segment::kReadable) != 0;
}

}  // namespace

bool check_stack_segment(Cpu& c, uint16_t selector, unsigned cpl, Descriptor& out,
                         DescriptorFault fault) {
  const uint32_t error = code_of(selector) | fault.ext;
  if (is_null(selector)) return raise(c, fault.vector, fault.ext);
  if (!read_descriptor(c, selector, out, fault)) return false;
  if (rpl_of(selector) != cpl || out.dpl() != cpl || !out.writable_data())
    return raise(c, fault.vector, error);
  return out.present() || raise(c, kStackFault, error);
}

bool load_segment(Cpu& c, Seg which, uint16_t selector) {
  if (!protected_mode(c)) {
    load_real(c, which, selector);
    if (which == kSs) update_mode(c);
    return true;
  }
  if (is_null(selector)) {
    if (!load_null(c, which, selector)) return false;
    if (which == kSs) update_mode(c);
    return true;
  }
  Descriptor d;
  const bool fits = which == kSs ? check_stack_segment(c, selector, c.cpl, d, {})
                                 : check_data_segment(c, selector, d);
  if (!fits || !mark_accessed(c, d)) return false;
  c.seg[which] = segment_from(d, selector);
  if (which == kSs) update_mode(c);
  return true;
}

bool segment_address(Cpu& c, Seg seg, uint64_t offset, unsigned size, Access access,
                     uint64_t& linear) {
  const Segment& s = c.seg[seg];
  if (c.mode.is64()) {
    linear = offset + (seg == kFs || seg == kGs ? s.base : 0);
    if (canonical(linear)) return true;
    return raise(c, seg == kSs ? kStackFault : kGeneralProtection, 0);
  }
  linear = static_cast<uint32_t>(s.base + offset);
  if (rights_suit(s, access) && in_limits(s, offset, size)) return true;
  return raise(c, seg == kSs ? kStackFault : kGeneralProtection, 0);
}

bool general_address(Cpu& c, const Op* op, unsigned size, Access access, uint64_t& linear) {
  return segment_address(c, static_cast<Seg>(op->seg), segment_offset(c, op), size, access, linear);
}

Address general_address_of(Cpu& c, const Op* op, unsigned size, Access access) {
  Address a{};
  a.ok = general_address(c, op, size, access, a.linear);
  return a;
}

void install_code(Cpu& c, const Descriptor& d, uint16_t selector, unsigned cpl) {
  c.seg[kCs] = segment_from(d, static_cast<uint16_t>((selector & 0xfffc) | cpl));
  set_cpl(c, static_cast<uint8_t>(cpl));
}

void drop_inner_segments(Cpu& c) {
  for (const Seg which : {kEs, kDs, kFs, kGs}) {
    Segment& s = c.seg[which];
    const bool conforming_code =
        (s.access & Segment::kCode) != 0 && (s.access & Segment::kConforming) != 0;
    if (!s.usable() || conforming_code || s.dpl() >= c.cpl) continue;
    s.selector = 0;
    s.access = 0;
  }
}

// SDM 2A "LLDT".
bool load_ldt(Cpu& c, uint16_t selector) {
  if (is_null(selector)) {
    c.ldtr = {.selector = selector};
    return true;
  }
  if ((selector & 4) != 0) return raise(c, kGeneralProtection, code_of(selector));
  Descriptor d;
  if (!(long_mode(c) ? read_descriptor16(c, selector, d) : read_descriptor(c, selector, d)))
    return false;
  if (!d.is_system() || d.type() != 2) return raise(c, kGeneralProtection, code_of(selector));
  if (!d.present()) return raise(c, kSegmentNotPresent, code_of(selector));
  Segment s = segment_from(d, selector);
  s.base |= d.high << 32;
  if (long_mode(c) && !canonical(s.base)) return raise(c, kGeneralProtection, code_of(selector));
  c.ldtr = s;
  return true;
}

// SDM 2A "LTR": marks the task state segment busy.
bool load_task_register(Cpu& c, uint16_t selector) {
  if (is_null(selector)) return raise(c, kGeneralProtection, 0);
  if ((selector & 4) != 0) return raise(c, kGeneralProtection, code_of(selector));
  Descriptor d;
  if (!(long_mode(c) ? read_descriptor16(c, selector, d) : read_descriptor(c, selector, d)))
    return false;
  const bool available = d.type() == 9 || (d.type() == 1 && !long_mode(c));
  if (!d.is_system() || !available) return raise(c, kGeneralProtection, code_of(selector));
  if (!d.present()) return raise(c, kSegmentNotPresent, code_of(selector));
  d.low |= uint64_t{2} << 40;
  Segment s = segment_from(d, selector);
  s.base |= d.high << 32;
  if (long_mode(c) && !canonical(s.base)) return raise(c, kGeneralProtection, code_of(selector));
  const auto access = static_cast<uint8_t>(d.low >> 40);
  if (!write_system(c, d.at + 5, &access, 1)) return false;
  c.tr = s;
  return true;
}

}  // namespace us::hv
