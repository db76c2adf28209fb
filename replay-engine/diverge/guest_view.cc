#include "replay-engine/diverge/guest_view.h"

#include <Zydis/Zydis.h>
#include <algorithm>
#include <fmt/format.h>
#include <optional>

#include "hv/cpu/soft_vcpu.h"

namespace us::replay {
namespace {

constexpr size_t kInstructionMax = 15;  // SDM 2A 2.3.11

const hv::Cpu& cpu_of(const hv::Machine& machine) {
  return dynamic_cast<const hv::SoftVcpu&>(machine.vcpu()).cpu();
}

constexpr uint64_t kPageAddress = 0x000f'ffff'ffff'f000;

std::optional<uint64_t> walk(const hv::GuestMemory& memory, uint64_t cr3, uint64_t linear) {
  constexpr uint64_t kPresent = 1, kLarge = 1 << 7;
  uint64_t table = cr3 & kPageAddress;
  for (unsigned shift = 39;; shift -= 9) {
    uint64_t entry = 0;
    const GuestPhys at(table + ((linear >> shift) & 511) * sizeof entry);
    if (!memory.read(at, {reinterpret_cast<uint8_t*>(&entry), sizeof entry}) ||
        (entry & kPresent) == 0)
      return std::nullopt;
    const uint64_t inside = (uint64_t{1} << shift) - 1;
    if (shift == 12 || (shift < 39 && (entry & kLarge) != 0))
      return (entry & kPageAddress & ~inside) | (linear & inside);
    table = entry & kPageAddress;
  }
}

void init(ZydisDecoder& decoder, hv::Mode mode) {
  if (mode.is64()) {
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  } else if (mode.is32()) {
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
  } else {
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
  }
}

BranchKind kind_of(const ZydisDecodedInstruction& in, const ZydisDecodedOperand* operands) {
  switch (in.meta.category) {
    case ZYDIS_CATEGORY_COND_BR: return BranchKind::kConditional;
    case ZYDIS_CATEGORY_RET: return BranchKind::kIndirect;
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_INTERRUPT: return BranchKind::kFar;
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_UNCOND_BR:
      if (in.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) return BranchKind::kFar;
      return operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? BranchKind::kDirect
                                                              : BranchKind::kIndirect;
    default: return BranchKind::kNone;
  }
}

}  // namespace

const char* register_name(unsigned gpr) {
  static constexpr const char* kNames[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                           "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
  return kNames[gpr % 16];
}

size_t read_guest(const hv::Machine& machine, uint64_t linear, std::span<uint8_t> out) {
  const hv::Cpu& cpu = cpu_of(machine);
  size_t done = 0;
  while (done < out.size()) {
    const uint64_t at = linear + done;
    const size_t n = std::min<size_t>(out.size() - done, kPageSize - (at & kPageMask));
    uint64_t phys = 0;
    if (!hv::translate_quietly(cpu, at, phys) ||
        !cpu.memory.read(GuestPhys(phys), out.subspan(done, n)))
      return done;
    done += n;
  }
  return done;
}

size_t read_guest_as(const hv::Machine& machine, uint64_t cr3, uint64_t linear,
                     std::span<uint8_t> out) {
  const hv::Cpu& cpu = cpu_of(machine);
  if (((cr3 ^ cpu.cr3) & kPageAddress) == 0) return read_guest(machine, linear, out);
  const size_t n = std::min<size_t>(out.size(), kPageSize - (linear & kPageMask));
  const auto phys = walk(cpu.memory, cr3, linear);
  return phys && cpu.memory.read(GuestPhys(*phys), out.first(n)) ? n : 0;
}

CodeLine disassemble(const hv::Machine& machine, uint64_t ip) {
  CodeLine line{.ip = ip, .text = "(not readable)"};
  uint8_t code[kInstructionMax];
  const hv::Cpu& cpu = cpu_of(machine);
  const size_t readable =
      read_guest(machine, cpu.mode.is64() ? ip : ip + cpu.seg[hv::kCs].base, code);
  if (readable == 0) return line;
  ZydisDecoder decoder;
  init(decoder, cpu.mode);
  ZydisDecodedInstruction in;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code, readable, &in, operands))) {
    line.text = "(no instruction)";
    return line;
  }
  line.length = in.length;
  for (unsigned i = 0; i < in.length; ++i) line.bytes += fmt::format("{:02x}", code[i]);
  ZydisFormatter formatter;
  ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
  char text[160];
  if (ZYAN_SUCCESS(ZydisFormatterFormatInstruction(
          &formatter, &in, operands, in.operand_count_visible, text, sizeof text, ip, nullptr)))
    line.text = text;
  line.branch = kind_of(in, operands);
  if (line.branch == BranchKind::kConditional || line.branch == BranchKind::kDirect) {
    ZyanU64 target = 0;
    if (ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&in, &operands[0], ip, &target)))
      line.target = target;
  }
  return line;
}

}  // namespace us::replay
