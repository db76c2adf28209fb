#include "tests/unit/cpu_sse/guest.h"

#include <cstring>

#include "hv/cpu/flags.h"
#include "hv/cpu/handler.h"
#include "hv/cpu/sse.h"

namespace us::test {
namespace {

constexpr uint64_t kPage = 0x10000;
constexpr uint64_t kWindow = kPage + 4096 - kWindowSize / 2;

const hv::Op* finish(hv::Cpu& c, const hv::Op*) {
  c.exit = hv::Exit::kContinue;
  return nullptr;
}

}  // namespace

Guest::Guest() {
  auto memory = hv::GuestMemory::create(1 << 20);
  memory_ = std::move(memory.value());
  bus_ = std::make_unique<hv::NoBus>();
  cpu_ = std::make_unique<hv::Cpu>(*memory_, *bus_);
  hv::Cpu& c = *cpu_;
  // Paging off, so addresses are physical; 64-bit code all the same, as no handler asks for both.
  c.cr0 = hv::cr0::kPe | hv::cr0::kNe;
  c.cr4 = hv::cr4::kOsfxsr | hv::cr4::kOsxmmexcpt;
  c.mode.bits = hv::Mode::kCode64;
}
Guest::~Guest() = default;

uint8_t* Guest::window() { return memory_->host(GuestPhys(kWindow)); }

void Guest::load(const MachineState& s, unsigned offset) {
  hv::Cpu& c = *cpu_;
  for (unsigned i = 0; i < 16; ++i) c.xmm[i] = s.xmm[i];
  for (unsigned i = 0; i < 16; ++i) c.regs[i] = s.gpr[i];
  for (unsigned i = 0; i < 8; ++i) {
    c.fpu.reg[i].mantissa = s.mm[i];
    c.fpu.reg[i].exponent = s.mm_high[i];
  }
  c.fpu.valid = s.valid;
  c.fpu.status = static_cast<uint16_t>(s.top << 11);
  c.regs[3] = c.regs[7] = kWindow + offset;
  c.regs[hv::kZero] = 0;
  hv::set_arithmetic_flags(c, s.flags);
  c.mxcsr = s.mxcsr;
  c.mode.bits &= ~hv::Mode::kSseTraps;
  if ((s.mxcsr & 0x1f80) != 0x1f80) c.mode.bits |= hv::Mode::kSseTraps;
  std::memcpy(window(), s.window.data(), kWindowSize);
}

MachineState Guest::store() {
  const hv::Cpu& c = *cpu_;
  MachineState s;
  for (unsigned i = 0; i < 16; ++i) s.xmm[i] = c.xmm[i];
  for (unsigned i = 0; i < 16; ++i) s.gpr[i] = c.regs[i];
  for (unsigned i = 0; i < 8; ++i) {
    s.mm[i] = c.fpu.reg[i].mantissa;
    s.mm_high[i] = c.fpu.reg[i].exponent;
  }
  s.valid = static_cast<uint8_t>(c.fpu.valid);
  s.top = static_cast<uint8_t>(c.fpu.top());
  s.flags = hv::arithmetic_flags(c) | 2;
  s.mxcsr = c.mxcsr;
  std::memcpy(s.window.data(), window(), kWindowSize);
  return s;
}

bool Guest::decode(std::span<const uint8_t> code, hv::Insn& out, hv::Mode mode) const {
  ZydisDecoder decoder;
  if (mode.is64())
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  else
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
  out.mode = mode;
  return ZYAN_SUCCESS(
      ZydisDecoderDecodeFull(&decoder, code.data(), code.size(), &out.raw, out.operands));
}

hv::Selection Guest::select(const hv::Insn& in, hv::Op& op) const {
  const hv::Selection selection = hv::select_sse(in, op);
  return selection.fn != nullptr ? selection : hv::select_mmx(in, op);
}

bool Guest::run(std::span<const uint8_t> code) {
  hv::Insn in;
  if (!decode(code, in, cpu_->mode)) return false;
  hv::Op ops[2];
  ops[0].length = in.raw.length;
  const hv::Selection selection = select(in, ops[0]);
  if (selection.fn == nullptr) return false;
  ops[0].fn = selection.fn;
  ops[1].fn = &finish;
  hv::enter_guest_sse(*cpu_);
  const hv::Op* op = ops;
  while (op != nullptr) op = op->fn(*cpu_, op);
  hv::leave_guest_sse(*cpu_);
  return true;
}

std::string Guest::text(const hv::Insn& in) {
  ZydisFormatter formatter;
  ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
  char line[160] = "?";
  ZydisFormatterFormatInstruction(&formatter, &in.raw, in.operands, in.raw.operand_count_visible,
                                  line, sizeof line, 0, nullptr);
  return line;
}

}  // namespace us::test
