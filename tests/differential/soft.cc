#include "tests/differential/soft.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "hv/cpu/flags.h"
#include "hv/cpu/translate/translator.h"

namespace us::differential {
namespace {

using namespace hv;

// Guest physical layout.
constexpr uint64_t kTables = 0x10'0000, kCodePhys = 0x20'0000, kDataPhys = 0x30'0000,
                   kStackPhys = 0x40'0000, kKernelPhys = 0x50'0000;
constexpr uint64_t kMemorySize = 0x80'0000;
// The kernel's page run: IDT, GDT and TSS, handlers, stack.
constexpr uint64_t kKernelBase = 0xffff'8000'0000'0000;
constexpr uint64_t kIdt = 0, kGdt = 0x1000, kTss = 0x1800, kHandlers = 0x2000, kStackTop = 0x5000;
constexpr unsigned kKernelPages = 5, kHandlerPitch = 16;

// Page table rights. SDM 3A 4.5.
constexpr uint64_t kPresent = 1, kWritable = 2, kUser = 4, kNoExecute = 1ull << 63;

// Linux's selectors, which the tests can read.
constexpr uint16_t kKernelCs = 0x10, kUserSs = 0x2b, kUserCs = 0x33, kTssSelector = 0x40;

constexpr uint64_t kGdtEntries[] = {0,
                                    0x00cf'9b00'0000'ffff,
                                    0x00af'9b00'0000'ffff,   // 0x10 kernel code
                                    0x00cf'9300'0000'ffff,   // 0x18 kernel data
                                    0x00cf'fb00'0000'ffff,   // 0x23 32-bit user code
                                    0x00cf'f300'0000'ffff,   // 0x2b user data
                                    0x00af'fb00'0000'ffff};  // 0x33 user code

bool has_error_code(uint64_t vector) {
  return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

Segment user_segment(uint16_t selector, uint16_t access) {
  Segment s;
  s.limit = 0xffff'ffff;
  s.access = access;
  s.selector = selector;
  return s;
}

}  // namespace

Soft::Soft() {
  auto memory = GuestMemory::create(kMemorySize);
  memory_ = std::move(memory.value());
  bus_ = std::make_unique<NoBus>();
  vcpu_ = std::make_unique<SoftVcpu>(*memory_, *bus_);
  data_ = memory_->host(GuestPhys(kDataPhys));
  stack_ = memory_->host(GuestPhys(kStackPhys));
  build_kernel();
}
Soft::~Soft() = default;

std::string Soft::translator() const {
  return vcpu_->translator() != nullptr ? vcpu_->translator()->summary() : "";
}

void Soft::map(uint64_t va, uint64_t phys, uint64_t pages, uint64_t rights) {
  for (uint64_t i = 0; i < pages; ++i, va += kPage, phys += kPage) {
    uint64_t table = kTables;
    for (int shift = 39; shift > 12; shift -= 9) {
      auto* entry =
          reinterpret_cast<uint64_t*>(memory_->host(GuestPhys(table))) + ((va >> shift) & 511);
      if (*entry == 0) *entry = (next_table_ += kPage) | kPresent | kWritable | kUser;
      table = *entry & ~(kPage - 1);
    }
    reinterpret_cast<uint64_t*>(memory_->host(GuestPhys(table)))[(va >> 12) & 511] =
        phys | kPresent | rights;
  }
}

void Soft::describe_interrupt(unsigned vector) {
  const uint64_t handler = kKernelBase + kHandlers + vector * kHandlerPitch;
  const bool user_may_call = vector == kBreakpointTrap || vector == kOverflow;
  const uint64_t access = user_may_call ? 0xee00 : 0x8e00;  // interrupt gates
  uint64_t gate[2] = {(handler & 0xffff) | uint64_t{kKernelCs} << 16 | access << 32 |
                          ((handler >> 16) & 0xffff) << 48,
                      handler >> 32};
  std::memcpy(memory_->host(GuestPhys(kKernelPhys + kIdt + vector * 16)), gate, sizeof gate);
  *memory_->host(GuestPhys(kKernelPhys + kHandlers + vector * kHandlerPitch)) = 0xf4;  // HLT
}

void Soft::build_kernel() {
  next_table_ = kTables;
  map(kCodeBase, kCodePhys, kCodeSize / kPage, kUser);
  map(kDataBase, kDataPhys, kDataPages, kUser | kWritable | kNoExecute);
  map(kReadOnlyPage, kDataPhys + kDataPages * kPage, 1, kUser | kNoExecute);
  map(kStackBase, kStackPhys, kStackPages, kUser | kWritable | kNoExecute);
  map(kKernelBase, kKernelPhys, kKernelPages, kWritable);
  for (unsigned vector = 0; vector < 256; ++vector) describe_interrupt(vector);
  uint8_t* kernel = memory_->host(GuestPhys(kKernelPhys));
  std::memcpy(kernel + kGdt, kGdtEntries, sizeof kGdtEntries);
  const uint64_t rsp0 = kKernelBase + kStackTop;
  std::memcpy(kernel + kTss + 4, &rsp0, 8);
  const uint16_t no_io_map = 0x68;
  std::memcpy(kernel + kTss + 102, &no_io_map, 2);
  Cpu& c = vcpu_->cpu();
  c.cr0 = cr0::kPe | cr0::kMp | cr0::kEt | cr0::kNe | cr0::kWp | cr0::kAm | cr0::kPg;
  c.cr3 = kTables;
  c.cr4 = cr4::kPae | cr4::kPge | cr4::kOsfxsr | cr4::kOsxmmexcpt | cr4::kOsxsave | cr4::kFsgsbase;
  c.efer = efer::kSce | efer::kLme | efer::kLma | efer::kNxe;
  c.xcr0 = 3;
  c.gdtr = {kKernelBase + kGdt, sizeof kGdtEntries - 1, 0};
  c.idtr = {kKernelBase + kIdt, 0xfff, 0};
  c.tr = user_segment(kTssSelector, 0x8b);
  c.tr.base = kKernelBase + kTss;
  c.tr.limit = 0x67;
}

void Soft::load_code(unsigned bank, const uint8_t* bytes) {
  const uint64_t size = uint64_t{kBatch} * kSlotSize;
  (void)memory_->write(GuestPhys(kCodePhys + bank * size), {bytes, size});
}

void Soft::set_memory(const uint8_t* data, const uint8_t* stack) {
  std::memcpy(data_, data, (kDataPages + 1) * kPage);
  std::memcpy(stack_, stack, kStackPages * kPage);
}

void Soft::load(const Snapshot& s) {
  Cpu& c = vcpu_->cpu();
  std::memcpy(c.regs, s.gpr, sizeof s.gpr);
  c.rip = s.rip;
  set_arithmetic_flags(c, s.rflags);
  c.rflags_other = (s.rflags & ~flag::kArithmetic) | flag::kOne;
  c.fpu = {};
  c.fpu.control = s.fcw;
  c.fpu.status = s.fsw;
  c.fpu.valid = s.ftw;
  for (unsigned i = 0; i < 8; ++i) {
    auto& r = c.fpu.reg[(c.fpu.top() + i) & 7];
    r.mantissa = s.st[i].mantissa;
    r.exponent = s.st[i].exponent;
  }
  c.mxcsr = s.mxcsr;
  std::memcpy(c.xmm, s.xmm, sizeof s.xmm);
  c.seg[kCs] = user_segment(kUserCs, 0xa0fb);
  c.seg[kSs] = user_segment(kUserSs, 0xc0f3);
  for (const Seg seg : {kDs, kEs, kFs, kGs}) c.seg[seg] = {};
  c.seg[kGs].base = kGsBase;
  c.cpl = 3;
  c.halted = c.shutdown = c.interrupt_shadow = false;
  c.cr2 = 0;
  c.dr6 = 0xffff'0ff0;
  vcpu_->refresh();
  std::memcpy(data_ + (kDataWindowAt - kDataBase), s.data, kDataWindow);
  std::memcpy(stack_ + (kStackWindowAt - kStackBase), s.stack, kStackWindow);
}

void Soft::store(Snapshot& s) {
  const Cpu& c = vcpu_->cpu();
  s = {};
  std::memcpy(s.gpr, c.regs, sizeof s.gpr);
  s.vector = (c.rip - kKernelBase - kHandlers) / kHandlerPitch;
  // SS, RSP, RFLAGS, CS, RIP and maybe the error code, from the top down. SDM 3A 6.14.2.
  const uint8_t* top = memory_->host(GuestPhys(kKernelPhys)) + kStackTop;
  const auto word = [top](unsigned i) {
    uint64_t value;
    std::memcpy(&value, top - 8 * i, 8);
    return value;
  };
  s.gpr[kRsp] = word(2);
  s.rflags = word(3);
  s.rip = word(5);
  s.error = has_error_code(s.vector) ? word(6) : 0;
  s.cr2 = c.cr2;
  s.fcw = c.fpu.control;
  s.fsw = c.fpu.status;
  s.ftw = c.fpu.valid;
  for (unsigned i = 0; i < 8; ++i) {
    const auto& r = c.fpu.reg[(c.fpu.top() + i) & 7];
    s.st[i].mantissa = r.mantissa;
    s.st[i].exponent = r.exponent;
  }
  s.mxcsr = c.mxcsr;
  std::memcpy(s.xmm, c.xmm, sizeof s.xmm);
  std::memcpy(s.data, data_ + (kDataWindowAt - kDataBase), kDataWindow);
  std::memcpy(s.stack, stack_ + (kStackWindowAt - kStackBase), kStackWindow);
}

void Soft::run(const Snapshot& before, Snapshot& after, bool by_steps) {
  load(before);
  RunRequest request;
  // Far more than any test has: whoever gets there runs in circles.
  request.alarm = Branches(vcpu_->cpu().branches + 1000);
  // At an address nobody can reach: makes it step.
  request.has_breakpoint = by_steps;
  request.breakpoint = kNonCanonical;
  const StopReason reason = vcpu_->run(request);
  store(after);
  if (reason != StopReason::kHalted) after.vector = kHung;
}

}  // namespace us::differential
