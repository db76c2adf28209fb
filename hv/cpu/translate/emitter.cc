#include "hv/cpu/translate/emitter.h"

namespace us::hv {
namespace {

using namespace Xbyak;

int offset_in(const Cpu& c, const void* field) {
  return static_cast<int>(static_cast<const char*>(field) - reinterpret_cast<const char*>(&c)) -
         Layout::kBias;
}

constexpr unsigned kMappedCount = 16;

}  // namespace

Layout::Layout(const Cpu& c)
    : regs(offset_in(c, c.regs)),
      instructions(offset_in(c, &c.instructions)),
      branches(offset_in(c, &c.branches)),
      xmm(offset_in(c, c.xmm)),
      segments(offset_in(c, c.seg)),
      dtlb(offset_in(c, &c.dtlb)),
      itlb(offset_in(c, &c.itlb)),
      branch_limit(offset_in(c, &c.branch_limit)),
      host_flags(offset_in(c, &c.host_flags)),
      scratch(offset_in(c, c.scratch)),
      trace(offset_in(c, &c.trace)) {}

Emitter::Emitter(Cpu& c, CodeMemory& memory)
    : CodeGenerator(CodeMemory::kCodeBytes, memory.writable()), layout_(c), memory_(memory) {}

// --- Guest registers

void Emitter::get(const Reg64& to, unsigned guest) {
  if (mapped(guest)) {
    mov(to, host(guest));
  } else {
    mov(to, home(guest));
  }
}

void Emitter::put(unsigned guest, const Reg64& from) {
  if (mapped(guest)) {
    mov(host(guest), from);
  } else {
    mov(home(guest), from);
  }
}

void Emitter::advance(unsigned guest, int by) {
  if (mapped(guest)) {
    lea(host(guest), ptr[host(guest) + by]);
  } else {
    mov(rcx, home(guest));
    lea(rcx, ptr[rcx + by]);
    mov(home(guest), rcx);
  }
}

// --- Guest memory

void Emitter::linear_address(const Op& op, uint32_t block_offset, bool with_segment) {
  const bool has_base = op.base != kZero, has_index = op.index != kZero;
  const int disp = op.disp + (op.base == kRipBase ? static_cast<int>(block_offset) : 0);
  Reg64 base = rax, index = rcx;
  if (has_base) {
    if (mapped(op.base))
      base = host(op.base);
    else
      mov(rax, home(op.base));
  }
  if (has_index) {
    if (mapped(op.index))
      index = host(op.index);
    else
      mov(rcx, home(op.index));
  }
  if (has_base && has_index) {
    lea(rax, ptr[base + index * (1 << op.scale) + disp]);
  } else if (has_base) {
    lea(rax, ptr[base + disp]);
  } else if (has_index) {
    lea(rax, ptr[index * (1 << op.scale) + disp]);
  } else {
    mov(rax, static_cast<int64_t>(disp));
  }
  if (with_segment && (op.flags & Op::kBased64) != 0) {
    mov(rcx, qword[rbp + layout_.segments + static_cast<int>(op.seg * sizeof(Segment))]);
    lea(rax, ptr[rax + rcx]);
  }
}

void Emitter::host_address(unsigned size, bool write, bool aligned, Label& miss) {
  static_assert(sizeof(TlbEntry) == 32 && kTlbEntries == 512);
  const int tag = write ? static_cast<int>(offsetof(TlbEntry, write_tag))
                        : static_cast<int>(offsetof(TlbEntry, read_tag));
  mov(ecx, eax);
  shr(ecx, 7);
  and_(ecx, (kTlbEntries - 1) << 5);
  add(rcx, qword[rbp + layout_.dtlb]);
  if (aligned || size == 1) {
    mov(rdx, rax);
  } else {
    lea(rdx, ptr[rax + static_cast<int>(size - 1)]);
  }
  // As in access.h: the page of the last byte; low bits kept find misalignment.
  and_(rdx, aligned ? -0x1000 + 15 : -0x1000);
  cmp(rdx, qword[rcx + tag]);
  jne(miss, T_NEAR);
  add(rax, qword[rcx + static_cast<int>(offsetof(TlbEntry, delta))]);
}

// --- Guest flags

void Emitter::save_flags(bool clear_adjust) {
  lahf();
  seto(al);
  if (clear_adjust) and_(ah, 0xef);
  mov(word[rbp + layout_.host_flags], ax);
}

void Emitter::restore_flags() {
  movzx(eax, word[rbp + layout_.host_flags]);
  add(al, 0x7f);
  sahf();
}

// --- Rewriting

namespace {

bool has_byte_register(const Insn& in) {
  for (unsigned i = 0; i < in.visible(); ++i)
    if (in.is_gpr(i) && in.size(i) == 1) return true;
  return false;
}

}  // namespace

void Emitter::rewrite(const Insn& in, int extension, const RmOperand& rm, int replaced_immediate) {
  const auto& raw = in.raw.raw;
  bool operand_size = false;
  uint8_t repeat = 0;
  for (unsigned i = 0; i < raw.prefix_count; ++i) {
    const auto& prefix = raw.prefixes[i];
    if (prefix.value == 0x66 && prefix.type != ZYDIS_PREFIX_TYPE_IGNORED) operand_size = true;
    if ((prefix.value == 0xf2 || prefix.value == 0xf3) &&
        prefix.type == ZYDIS_PREFIX_TYPE_MANDATORY)
      repeat = prefix.value;
  }
  if (operand_size) db(0x66);
  if (repeat != 0) db(repeat);
  const int wide = raw.rex.W, high = extension >> 3, low = rm.reg >> 3;
  if (wide != 0 || high != 0 || low != 0 || has_byte_register(in))
    db(static_cast<size_t>(0x40 | wide << 3 | high << 2 | low));
  if (in.raw.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT) db(0x0f);
  if (in.raw.opcode_map == ZYDIS_OPCODE_MAP_0F38) db(0x38);
  if (in.raw.opcode_map == ZYDIS_OPCODE_MAP_0F3A) db(0x3a);
  db(in.raw.opcode);
  const int mod = !rm.memory ? 3 : rm.reg == 5 ? 2 : 0;
  db(static_cast<size_t>(mod << 6 | (extension & 7) << 3 | (rm.reg & 7)));
  if (mod == 2) dd(static_cast<uint32_t>(rm.disp));
  for (const auto& imm : raw.imm) {
    if (imm.size == 0) continue;
    const uint64_t value =
        replaced_immediate >= 0 ? static_cast<uint64_t>(replaced_immediate) : imm.value.u;
    db(value, imm.size / 8);
  }
}

// --- Leaving

void Emitter::spill() {
  for (unsigned i = 0; i < kMappedCount; ++i)
    if (mapped(i)) mov(home(i), host(i));
  lea(rcx, ptr[r15 - 1]);
  mov(qword[rbp + layout_.branches], rcx);
}

void Emitter::reload() {
  for (unsigned i = 0; i < kMappedCount; ++i)
    if (mapped(i)) mov(host(i), home(i));
}

// To `function`(Cpu&, RAX, RDX) in place of whoever entered.
void Emitter::leave_frame(const void* function) {
  lea(rdi, ptr[rbp - Layout::kBias]);
  mov(rsi, rax);
  mov(rax, reinterpret_cast<uint64_t>(function));
  add(rsp, 8);
  for (const Reg64& reg : {r15, r14, r13, r12, rbp, rbx}) pop(reg);
  jmp(rax);
}

template <class F>
const void* address(F* function) {
  return reinterpret_cast<const void*>(function);
}

void Emitter::write_stubs(Cpu& c) {
  stubs_.enter = executable();
  for (const Reg64& reg : {rbx, rbp, r12, r13, r14, r15}) push(reg);
  sub(rsp, 8);
  lea(rbp, ptr[rdi + Layout::kBias]);
  mov(rax, rsi);
  mov(r15, qword[rbp + layout_.branches]);
  inc(r15);
  reload();
  jmp(rax);

  const auto leave = [&](const void* function) {
    spill();
    leave_frame(function);
  };
  stubs_.interpret = getCurr();
  leave(address(&runtime::interpret_from));
  stubs_.stop = getCurr();
  leave(address(&runtime::stop_at));
  stubs_.find_target = getCurr();
  leave(address(&runtime::find_target));
  stubs_.go_to_block = executable();
  mov(rax, rdx);
  leave(address(&runtime::go_to_block));
  stubs_.look_up = executable();
  mov(rax, rdx);
  leave(address(&runtime::look_up));

  // A lone op: back to the caller, or out of translated code with everything already in the Cpu.
  stubs_.lone = getCurr();
  Label left;
  spill();
  sub(rsp, 8);
  lea(rdi, ptr[rbp - Layout::kBias]);
  mov(rsi, rax);
  mov(rax, reinterpret_cast<uint64_t>(&runtime::run_lone));
  call(rax);
  test(rax, rax);
  jz(left);
  reload();
  add(rsp, 8);
  ret();
  L(left);
  add(rsp, 24);
  for (const Reg64& reg : {r15, r14, r13, r12, rbp, rbx}) pop(reg);
  ret();
  write_trace_stubs();
  c.enter_translated =
      reinterpret_cast<const Op* (*)(Cpu*, const void*)>(reinterpret_cast<uintptr_t>(stubs_.enter));
}

// What the guest's code reports to the PT model. Guest registers that calls may change wait on the
// stack, which is aligned for a call here.
void Emitter::write_trace_stubs() {
  const Reg64 kept[] = {rdx, rsi, rdi, r8, r9, r10, r11};
  const auto call_with_cpu = [&](const void* function) {
    lea(rdi, ptr[rbp - Layout::kBias]);
    mov(rax, reinterpret_cast<uint64_t>(function));
    call(rax);
  };
  const auto take_back = [&] {
    for (size_t i = std::size(kept); i-- > 0;) pop(kept[i]);
    ret();
  };
  stubs_.branches_full = getCurr();
  for (const Reg64& reg : kept) push(reg);
  sub(rsp, 256);
  for (int i = 0; i < 16; ++i) movaps(xword[rsp + i * 16], Xbyak::Xmm(i));
  call_with_cpu(address(&runtime::branches_full));
  for (int i = 0; i < 16; ++i) movaps(Xbyak::Xmm(i), xword[rsp + i * 16]);
  add(rsp, 256);
  take_back();
  stubs_.indirect = getCurr();
  for (const Reg64& reg : kept) push(reg);
  call_with_cpu(address(&runtime::indirect));
  take_back();
}

}  // namespace us::hv
