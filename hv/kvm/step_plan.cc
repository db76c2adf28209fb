#include "hv/kvm/step_plan.h"

#include <Zydis/Zydis.h>

#include "hv/cpu/mmu.h"
#include "hv/cpu/system.h"

namespace us::hv::kvm {
namespace {

constexpr unsigned kInstructionBytesMax = 15;

struct Decoders {
  ZydisDecoder long64, legacy32, legacy16;
  Decoders() {
    ZydisDecoderInit(&long64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderInit(&legacy32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&legacy16, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
  }
};

const ZydisDecoder& decoder_for(const Cpu& cpu) {
  static const Decoders decoders;
  if (cpu.mode.is64()) return decoders.long64;
  return cpu.mode.is32() ? decoders.legacy32 : decoders.legacy16;
}

uint64_t linear_rip(const Cpu& cpu, uint64_t rip) {
  return cpu.mode.is64() ? rip : static_cast<uint32_t>(cpu.seg[kCs].base + rip);
}

// Bytes of the guest's memory at a linear address, as many as are mapped.
unsigned read_linear(const Cpu& cpu, uint64_t linear, uint8_t* out, unsigned size) {
  unsigned got = 0;
  while (got < size) {
    uint64_t phys;
    if (!translate_quietly(cpu, linear + got, phys)) break;
    if (!cpu.memory.read(GuestPhys(phys), {out + got, 1})) break;
    ++got;
  }
  return got;
}

struct Decoded {
  ZydisDecodedInstruction raw;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

bool decode(const Cpu& cpu, uint64_t rip, Decoded& out) {
  uint8_t bytes[kInstructionBytesMax];
  const unsigned got = read_linear(cpu, linear_rip(cpu, rip), bytes, sizeof bytes);
  return got != 0 && ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder_for(cpu), bytes, got, &out.raw,
                                                         out.operands));
}

bool writes_stack_segment(const Decoded& in) {
  if (in.raw.mnemonic == ZYDIS_MNEMONIC_LSS) return true;
  if (in.raw.mnemonic != ZYDIS_MNEMONIC_MOV && in.raw.mnemonic != ZYDIS_MNEMONIC_POP) return false;
  return in.raw.operand_count_visible != 0 && in.operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
         in.operands[0].reg.value == ZYDIS_REGISTER_SS;
}

// Whether an x87, MMX or SSE exception is possible.
bool uses_vectors(const Decoded& in) {
  switch (in.raw.meta.isa_ext) {
    case ZYDIS_ISA_EXT_X87:
    case ZYDIS_ISA_EXT_MMX:
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSSE3:
    case ZYDIS_ISA_EXT_SSE4: return true;
    default: return false;
  }
}

StepPlan describe(const Cpu& cpu, uint64_t rip, const Decoded& in) {
  StepPlan plan;
  plan.decoded = true;
  plan.from = linear_rip(cpu, rip);
  plan.length = in.raw.length;
  plan.conditional_branch =
      in.raw.meta.category == ZYDIS_CATEGORY_COND_BR && in.raw.mnemonic != ZYDIS_MNEMONIC_XBEGIN;
  if (plan.conditional_branch && in.operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
    plan.target = rip + in.raw.length + static_cast<uint64_t>(in.operands[0].imm.value.s);
    if (!cpu.mode.is64()) plan.target &= in.raw.operand_width == 16 ? 0xffff : 0xffff'ffff;
  }
  plan.holds_trap = writes_stack_segment(in);
  plan.repeats = (in.raw.attributes &
                  (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) != 0;
  plan.needs_rest = uses_vectors(in) || in.raw.mnemonic == ZYDIS_MNEMONIC_SYSCALL ||
                    in.raw.mnemonic == ZYDIS_MNEMONIC_SYSENTER;
  switch (in.raw.mnemonic) {
    case ZYDIS_MNEMONIC_RDTSCP: plan.reads_time_aux = true; [[fallthrough]];
    case ZYDIS_MNEMONIC_RDTSC: plan.reads_time = true; break;
    case ZYDIS_MNEMONIC_HLT: plan.halts = true; break;
    case ZYDIS_MNEMONIC_STI: plan.opens_window = true; break;
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
      plan.stores_flags = true;
      plan.flags_bytes = in.raw.operand_width / 8u;
      break;
    case ZYDIS_MNEMONIC_SYSCALL: plan.enters_system = true; break;
    default: break;
  }
  return plan;
}

void add_handler(const Cpu& cpu, StepPlan& plan, uint8_t vector) {
  if (const auto address = handler_of(cpu, vector)) plan.add(*address, vector);
}

// The vector of a software interrupt, or nothing.
std::optional<uint8_t> software_vector(const Decoded& in) {
  switch (in.raw.mnemonic) {
    case ZYDIS_MNEMONIC_INT: return static_cast<uint8_t>(in.operands[0].imm.value.u);
    case ZYDIS_MNEMONIC_INT1: return kDebug;
    case ZYDIS_MNEMONIC_INT3: return kBreakpointTrap;
    case ZYDIS_MNEMONIC_INTO: return kOverflow;
    default: return std::nullopt;
  }
}

// Where IRET leads: its frame's first word.
std::optional<uint64_t> return_address(const Cpu& cpu, const Decoded& in) {
  const unsigned size = in.raw.operand_width / 8u;
  uint64_t rip = 0;
  const uint64_t stack =
      cpu.mode.is64() ? cpu.regs[kRsp] : static_cast<uint32_t>(cpu.seg[kSs].base + cpu.regs[kRsp]);
  if (size > sizeof rip || read_linear(cpu, stack, reinterpret_cast<uint8_t*>(&rip), size) != size)
    return std::nullopt;
  return rip;
}

// Instructions that lead elsewhere by themselves, or load TF so that the step's trap may be lost.
void add_own_targets(const Cpu& cpu, const Decoded& in, StepPlan& plan) {
  switch (in.raw.mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL:
      plan.add(cpu.mode.is64() ? cpu.msr.lstar : cpu.msr.cstar, StepPlan::kNoVector);
      break;
    case ZYDIS_MNEMONIC_SYSENTER: plan.add(cpu.msr.sysenter_eip, StepPlan::kNoVector); break;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
      plan.add(linear_rip(cpu, cpu.rip + in.raw.length), StepPlan::kNoVector);
      break;
    case ZYDIS_MNEMONIC_SYSRET: plan.add(cpu.regs[kRcx], StepPlan::kNoVector); break;
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
      if (const auto rip = return_address(cpu, in)) plan.add(*rip, StepPlan::kNoVector);
      break;
    default: break;
  }
}

void add_faults(const Cpu& cpu, const Decoded& in, StepPlan& plan) {
  constexpr uint32_t kSummary = 1u << 7;  // an unmasked x87 exception waits
  constexpr uint32_t kMasks = 0x1f80;
  if ((cpu.cr0 & (cr0::kTs | cr0::kEm)) != 0) add_handler(cpu, plan, kDeviceNotAvailable);
  if ((cpu.fpu.status & kSummary) != 0) add_handler(cpu, plan, kX87Error);
  if (uses_vectors(in) && (cpu.mxcsr & kMasks) != kMasks) add_handler(cpu, plan, kSimdError);
  if (in.raw.mnemonic == ZYDIS_MNEMONIC_DIV || in.raw.mnemonic == ZYDIS_MNEMONIC_IDIV)
    add_handler(cpu, plan, kDivideError);
  add_handler(cpu, plan, kPageFault);
  add_handler(cpu, plan, kGeneralProtection);
  add_handler(cpu, plan, kInvalidOpcode);
  add_handler(cpu, plan, kDoubleFault);
  add_handler(cpu, plan, kStackFault);
}

}  // namespace

void StepPlan::add(uint64_t address, int vector) {
  if (address == from) return;
  for (unsigned i = 0; i < landing_count; ++i)
    if (landings[i].address == address) return;
  if (landing_count < landings.size()) landings[landing_count++] = {address, vector};
}

std::optional<uint64_t> handler_of(const Cpu& cpu, uint8_t vector) {
  const bool wide = (cpu.efer & efer::kLma) != 0;
  if (!protected_mode(cpu)) return std::nullopt;
  const unsigned size = wide ? 16 : 8;
  if (vector * size + size - 1 > cpu.idtr.limit) return std::nullopt;
  uint64_t gate[2] = {};
  if (read_linear(cpu, cpu.idtr.base + vector * size, reinterpret_cast<uint8_t*>(gate), size) !=
      size)
    return std::nullopt;
  const Descriptor d{.low = gate[0]};
  if (!d.present()) return std::nullopt;
  return wide ? d.gate_offset() | gate[1] << 32 : uint64_t{d.gate_offset()};
}

StepPlan decode_at(const Cpu& cpu, uint64_t rip) {
  Decoded in;
  return decode(cpu, rip, in) ? describe(cpu, rip, in) : StepPlan{};
}

StepPlan plan_step(const Cpu& cpu) {
  Decoded in;
  if (!decode(cpu, cpu.rip, in)) {
    StepPlan plan;
    plan.from = linear_rip(cpu, cpu.rip);
    for (const uint8_t vector : {kPageFault, kGeneralProtection, kInvalidOpcode, kDoubleFault})
      add_handler(cpu, plan, vector);
    return plan;
  }
  StepPlan plan = describe(cpu, cpu.rip, in);
  if (const auto vector = software_vector(in)) add_handler(cpu, plan, *vector);
  add_own_targets(cpu, in, plan);
  add_faults(cpu, in, plan);
  return plan;
}

}  // namespace us::hv::kvm
