#include "tests/unit/cpu_int/guest.h"

#include <cstring>

#include "hv/cpu/flags.h"

namespace us::test {
namespace {

constexpr uint64_t kTop = 0x1000, kSecond = 0x2000, kThird = 0x3000, kDataTable = 0x4000;
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

Guest::Guest(Kind kind) {
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
