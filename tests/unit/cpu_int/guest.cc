#include "tests/unit/cpu_int/guest.h"

#include <cstring>

#include "hv/cpu/flags.h"

namespace us::test {
namespace {

constexpr uint64_t kTop = 0x1000, kSecond = 0x2000, kThird = 0x3000, kDataTable = 0x4000;
constexpr uint64_t kTss = 0x5000, kGdt = 0x6000, kIdt = 0x7000;
constexpr uint64_t kHandlers = 0x11'0000, kHandlerBytes = 16, kFaultStack = 0x18'0000;
constexpr uint64_t kRights = 3;  // present, writable
constexpr uint64_t kLargePage = 0x80;

hv::Segment flat(bool code, bool long_mode) {
  hv::Segment s;
  s.limit = 0xffff'ffff;
  s.selector = code ? 8 : 16;
  s.access = static_cast<uint16_t>(hv::Segment::kPresent | hv::Segment::kS |
                                   hv::Segment::kGranular | (code ? 0xb : 0x3) |
                                   (code && long_mode ? hv::Segment::kLong : hv::Segment::kBig));
  return s;
}

}  // namespace

Guest::Guest(Kind kind) : kind_(kind) {
  memory_ = std::move(hv::GuestMemory::create(256u << 20).value());
  bus_ = std::make_unique<PortBus>();
  vcpu_ = std::make_unique<hv::SoftVcpu>(*memory_, *bus_);
  hv::Cpu& c = cpu();
  const bool long_mode = kind == Kind::k64;
  for (hv::Segment& s : c.seg) s = flat(false, long_mode);
  c.seg[hv::kCs] = flat(true, long_mode);
  c.cr0 = hv::cr0::kPe | hv::cr0::kNe | hv::cr0::kEt;
  if (long_mode) {
    build_tables();
    c.cr0 |= hv::cr0::kPg | hv::cr0::kWp;
    c.cr4 = hv::cr4::kPae;
    c.cr3 = kTop;
    c.efer = hv::efer::kLme | hv::efer::kLma;
  }
  vcpu_->refresh();
}
Guest::~Guest() = default;

void Guest::poke(uint64_t address, uint64_t value) {
  std::memcpy(memory_->host(GuestPhys(address)), &value, sizeof value);
}

// 2 MiB pages, but 4 KiB ones where the data is.
void Guest::build_tables() {
  poke(kTop, kSecond | kRights);
  poke(kSecond, kThird | kRights);
  for (uint64_t i = 0; i < 128; ++i) poke(kThird + 8 * i, i << 21 | kRights | kLargePage);
  poke(kThird + 8 * (kData >> 21), kDataTable | kRights);
  for (uint64_t i = 0; i < 512; ++i) poke(kDataTable + 8 * i, (kData + (i << 12)) | kRights);
}

void Guest::map_page(uint64_t address, bool present) {
  const uint64_t page = address & ~kPageMask;
  poke(kDataTable + 8 * ((page - kData) >> 12), page | (present ? kRights : 0));
  hv::flush_tlb_all(cpu());
}

void Guest::alias_page(uint64_t address, uint64_t target) {
  poke(kDataTable + 8 * ((address - kData) >> 12), (target & ~kPageMask) | kRights);
  hv::flush_tlb_all(cpu());
}

void Guest::show_first_pages_everywhere() {
  for (uint64_t i = 0; i < 512; ++i) {
    poke(kTop + 8 * i, kSecond | kRights);
    poke(kSecond + 8 * i, kThird | kRights);
    poke(kThird + 8 * i, kRights | kLargePage);
  }
  hv::flush_tlb_all(cpu());
}

// Interrupt gates: SDM 3A 6.11 and 6.14.1; code and data descriptors: 3.4.5.
void Guest::catch_faults() {
  hv::Cpu& c = cpu();
  const bool wide = kind_ == Kind::k64;
  poke(kGdt, 0);
  poke(kGdt + 8, wide ? 0x00af'9b00'0000'ffff : 0x00cf'9b00'0000'ffff);
  poke(kGdt + 16, 0x00cf'9300'0000'ffff);
  c.gdtr = {.base = kGdt, .limit = 23};
  for (uint64_t vector = 0; vector < 32; ++vector) {
    const uint64_t handler = kHandlers + vector * kHandlerBytes;
    const uint64_t gate = (handler & 0xffff) | 8 << 16 | (handler & 0xffff'0000) << 32 |
                          uint64_t{0x8e00} << 32 | (wide ? uint64_t{1} << 32 : 0);
    poke(kIdt + vector * (wide ? 16 : 8), gate);
    if (wide) poke(kIdt + vector * 16 + 8, 0);
    *memory_->host(GuestPhys(handler)) = 0xf4;
  }
  c.idtr = {.base = kIdt, .limit = 0xfff};
  c.tr.base = kTss;
  c.tr.limit = 0x67;
  c.tr.access = hv::Segment::kPresent | 0xb;
  poke(kTss + 0x24, kFaultStack);  // IST1
  poke(kTss + 4, kFaultStack);     // RSP0
}

Guest::Caught Guest::caught() {
  const hv::Cpu& c = cpu();
  Caught out;
  if (c.rip < kHandlers || c.rip >= kHandlers + 32 * kHandlerBytes) return out;
  out.vector = static_cast<uint8_t>((c.rip - kHandlers) / kHandlerBytes);
  const bool has_error =
      out.vector == 8 || (out.vector >= 10 && out.vector <= 14) || out.vector == 17;
  const unsigned size = kind_ == Kind::k64 ? 8 : 4;
  uint64_t at = c.regs[hv::kRsp];
  const auto take = [&] {
    uint64_t value = 0;
    std::memcpy(&value, memory_->host(GuestPhys(at)), size);
    at += size;
    return value;
  };
  if (has_error) out.error = static_cast<uint32_t>(take());
  out.rip = take();
  take(), take();
  out.rsp = size == 8 ? take() : at;
  return out;
}

void Guest::load(const Machine& m) {
  hv::Cpu& c = cpu();
  for (unsigned i = 0; i < 16; ++i) c.regs[i] = m.regs[i];
  hv::set_arithmetic_flags(c, m.flags);
  c.rflags_other = hv::flag::kOne | (m.flags & kDirection);
  (void)memory_->write(GuestPhys(kWindow), m.window);
  c.halted = c.shutdown = c.interrupt_shadow = false;
}

Machine Guest::store() {
  const hv::Cpu& c = cpu();
  Machine m;
  for (unsigned i = 0; i < 16; ++i) m.regs[i] = c.regs[i];
  m.flags = 2 | hv::arithmetic_flags(c) | (c.rflags_other & kDirection);
  (void)memory_->read(GuestPhys(kWindow), m.window);
  return m;
}

void Guest::put(std::span<const uint8_t> code) {
  std::vector<uint8_t> bytes(code.begin(), code.end());
  bytes.push_back(0xf4);
  (void)memory_->write(GuestPhys(kCode), bytes);
  cpu().rip = kCode;
}

hv::StopReason Guest::run(std::span<const uint8_t> code) {
  put(code);
  return vcpu_->run({});
}

hv::StopReason Guest::step(std::span<const uint8_t> code) {
  put(code);
  return vcpu_->step();
}

}  // namespace us::test
