// FXSAVE, FXRSTOR, XSAVE and XRSTOR of the x87 and SSE states. SDM 1 10.5, 13.
#include "hv/cpu/sse.h"
#include "hv/cpu/x87_control.h"
#include "hv/cpu/x87_tables.h"

namespace us::hv::x87 {
namespace {

// The legacy region. SDM 1 table 10-2.
struct Legacy {
  uint16_t control, status;
  uint8_t tags, reserved1;
  uint16_t opcode;
  uint64_t ip, dp;
  uint32_t mxcsr, mxcsr_mask;
  Reg registers[8];
  Xmm xmm[16];
};
static_assert(sizeof(Legacy) == 416 && offsetof(Legacy, registers) == 32);
constexpr unsigned kPointersEnd = 24, kMxcsrEnd = 32, kX87End = 160;

constexpr uint64_t kX87 = 1, kSse = 2;
struct Header {
  uint64_t state, compaction, zero[6];
};
static_assert(sizeof(Header) == 64);
constexpr unsigned kHeaderAt = 512;

unsigned xmm_count(const Cpu& c) { return c.mode.is64() ? 16 : 8; }
unsigned legacy_size(const Cpu& c) { return kX87End + 16 * xmm_count(c); }

void fill_x87(const Cpu& c, const Op& op, Legacy& out) {
  const X87State& f = c.fpu;
  out.control = f.control;
  out.status = f.status;
  out.tags = static_cast<uint8_t>(f.valid);
  out.reserved1 = 0;
  out.opcode = f.opcode;
  out.ip = f.ip;
  out.dp = f.dp;
  if ((op.extra & kWidePointers) == 0) {  // 32-bit offsets and (zero) selectors
    out.ip &= 0xffff'ffff;
    out.dp &= 0xffff'ffff;
  }
  for (unsigned i = 0; i < 8; ++i) {
    out.registers[i] = f.reg[(f.top() + i) & 7];
    for (uint16_t& pad : out.registers[i].pad) pad = 0;
  }
}

void fill_sse(const Cpu& c, Legacy& out) {
  for (unsigned i = 0; i < xmm_count(c); ++i) out.xmm[i] = c.xmm[i];
}

void take_x87(Cpu& c, const Op& op, const Legacy& in) {
  X87State& f = c.fpu;
  f.status = in.status;
  set_control(f, in.control);
  f.valid = in.tags;
  f.opcode = in.opcode & 0x7ff;
  const bool is_wide = (op.extra & kWidePointers) != 0;
  f.ip = is_wide ? in.ip : static_cast<uint32_t>(in.ip);
  f.dp = is_wide ? in.dp : static_cast<uint32_t>(in.dp);
  for (unsigned i = 0; i < 8; ++i) {
    st(f, i).mantissa = in.registers[i].mantissa;
    st(f, i).exponent = in.registers[i].exponent;
  }
}

void take_sse(Cpu& c, const Legacy& in) {
  for (unsigned i = 0; i < xmm_count(c); ++i) c.xmm[i] = in.xmm[i];
}

bool aligned_address(Cpu& c, const Op& op, unsigned alignment, Access access, uint64_t& linear) {
  if (!operand_address(c, op, alignment, access, linear)) return false;
  return (linear & (alignment - 1)) == 0 || raise(c, kGeneralProtection, 0);
}

// #UD and #NM of the XSAVE family. SDM 2, XSAVE.
bool extended_allowed(Cpu& c) {
  if ((c.cr4 & cr4::kOsxsave) == 0) return raise(c, kInvalidOpcode);
  return (c.cr0 & cr0::kTs) == 0 || raise(c, kDeviceNotAvailable);
}

bool fx_allowed(Cpu& c) {
  return (c.cr0 & (cr0::kEm | cr0::kTs)) == 0 || raise(c, kDeviceNotAvailable);
}

// Both instructions need all of their 512 bytes, though the last ones are neither written nor used.
// Aligned to 16 they lie in two pages at most.
constexpr unsigned kFxSize = 512;
bool fx_area_there(Cpu& c, uint64_t linear, Access access) {
  const uint64_t next_page = (linear | kPageMask) + 1;
  const bool two = next_page - linear < kFxSize;
  if (access == Access::kWrite)
    return probe_write(c, linear, 1) && (!two || probe_write(c, next_page, 1));
  uint8_t byte;
  return load_slow(c, linear, &byte, 1) && (!two || load_slow(c, next_page, &byte, 1));
}

uint64_t requested(const Cpu& c) {
  return c.xcr0 & ((c.regs[kRdx] << 32) | (c.regs[kRax] & 0xffff'ffff));
}

// What XRSTOR demands of the header: standard form, nothing the system did not enable. SDM
// 1 13.8.1.
bool acceptable(const Cpu& c, const Header& header) {
  return (header.state & ~c.xcr0) == 0 && header.compaction == 0 && header.zero[0] == 0;
}

}  // namespace

bool fxsave(Cpu& c, const Op& op) {
  uint64_t linear;
  if (!fx_allowed(c) || !aligned_address(c, op, 16, Access::kWrite, linear)) return false;
  if (!fx_area_there(c, linear, Access::kWrite)) return false;
  Legacy area;
  fill_x87(c, op, area);
  area.mxcsr = guest_mxcsr(c);
  area.mxcsr_mask = kMxcsrWritable;
  const bool sse = (c.cr4 & cr4::kOsfxsr) != 0;
  if (sse) fill_sse(c, area);
  return store_range(c, linear, &area, sse ? legacy_size(c) : kX87End);
}

bool fxrstor(Cpu& c, const Op& op) {
  uint64_t linear;
  if (!fx_allowed(c) || !aligned_address(c, op, 16, Access::kRead, linear)) return false;
  Legacy area;
  if (!fx_area_there(c, linear, Access::kRead)) return false;
  if (!load_range(c, linear, &area, legacy_size(c))) return false;
  const bool sse = (c.cr4 & cr4::kOsfxsr) != 0;
  if (sse && (area.mxcsr & ~kMxcsrWritable) != 0) return raise(c, kGeneralProtection, 0);
  take_x87(c, op, area);
  if (sse) {
    take_sse(c, area);
    set_guest_mxcsr(c, area.mxcsr);
  }
  return true;
}

// Every requested component counts as in use: XSTATE_BV gets all of RFBM. SDM 1 13.6 lets a
// processor treat any component so.
bool xsave(Cpu& c, const Op& op) {
  uint64_t linear;
  if (!extended_allowed(c) || !aligned_address(c, op, 64, Access::kWrite, linear)) return false;
  const uint64_t wanted = requested(c);
  uint64_t state;
  if (!load_range(c, linear + kHeaderAt, &state, 8)) return false;
  state |= wanted;
  if (!probe_write(c, linear + kHeaderAt, 8) || !probe_write(c, linear, 16)) return false;
  if (!probe_write(c, linear + legacy_size(c) - 16, 16)) return false;
  Legacy area;
  fill_x87(c, op, area);
  fill_sse(c, area);
  area.mxcsr = guest_mxcsr(c);
  area.mxcsr_mask = kMxcsrWritable;
  const auto* bytes = reinterpret_cast<const uint8_t*>(&area);
  const auto put = [&](unsigned from, unsigned to) {
    return store_range(c, linear + from, bytes + from, to - from);
  };
  bool ok = store_range(c, linear + kHeaderAt, &state, 8);
  if ((wanted & kX87) != 0) ok = ok && put(0, kPointersEnd) && put(kMxcsrEnd, kX87End);
  if ((wanted & kSse) != 0) ok = ok && put(kPointersEnd, kMxcsrEnd) && put(kX87End, legacy_size(c));
  return ok;
}

bool xrstor(Cpu& c, const Op& op) {
  uint64_t linear;
  if (!extended_allowed(c) || !aligned_address(c, op, 64, Access::kRead, linear)) return false;
  Header header;
  Legacy area;
  if (!load_range(c, linear + kHeaderAt, &header, sizeof header)) return false;
  if (!load_range(c, linear, &area, legacy_size(c))) return false;
  const uint64_t wanted = requested(c);
  if (!acceptable(c, header)) return raise(c, kGeneralProtection, 0);
  // MXCSR is loaded with the SSE component whatever XSTATE_BV says. SDM 1 13.8.1.
  if ((wanted & kSse) != 0 && (area.mxcsr & ~kMxcsrWritable) != 0)
    return raise(c, kGeneralProtection, 0);
  if ((wanted & kX87) != 0) {
    if ((header.state & kX87) != 0) {
      take_x87(c, op, area);
    } else {
      initialize(c.fpu);
      for (Reg& r : c.fpu.reg) r = {};
    }
  }
  if ((wanted & kSse) != 0) {
    if ((header.state & kSse) == 0) std::memset(area.xmm, 0, sizeof area.xmm);
    take_sse(c, area);
    set_guest_mxcsr(c, area.mxcsr);
  }
  return true;
}

}  // namespace us::hv::x87
