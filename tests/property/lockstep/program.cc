#include "program.h"

#define XBYAK_NO_EXCEPTION
#include <xbyak/xbyak.h>

#include "base/check.h"
#include "pmu/random.h"

namespace us::lockstep {
namespace {

using namespace Xbyak;

constexpr size_t kMost = 1 << 16;
// RBX, RSP, R12 (outer loop), R14 (where faults go on) and R15 (inner loop) are left alone.
constexpr int kFree[] = {0, 1, 2, 5, 6, 7, 8, 9, 10, 11, 13};

class Program : public CodeGenerator {
 public:
  explicit Program(uint64_t seed) : CodeGenerator(kMost), random_(seed) {}

  void build() {
    const unsigned turns = 30 + static_cast<unsigned>(random_.below(400));
    mov(r12d, turns);
    L(top_);
    for (unsigned i = 0, n = 10 + static_cast<unsigned>(random_.below(120)); i < n; ++i) item(0);
    dec(r12d);
    jnz(top_, T_NEAR);
    hlt();
    for (Label& function : functions_) {
      // Some cross pages, some lie in the same one.
      if (random_.one_in(3)) {
        for (uint64_t n = random_.below(3000); n > 0; --n) nop();
      }
      L(function);
      for (unsigned i = 0, n = 1 + static_cast<unsigned>(random_.below(10)); i < n; ++i) item(2);
      if (random_.one_in(2)) {
        ret();
      } else {
        pop(rax);
        jmp(rax);
      }
    }
    US_CHECK(GetError() == ERR_NONE, "{}", ConvertErrorToString(GetError()));
  }

 private:
  int free_register() { return kFree[random_.below(std::size(kFree))]; }
  Reg64 r64() { return Reg64(free_register()); }
  Reg sized() {
    const int i = free_register();
    switch (random_.below(5)) {
      case 0: return i >= 4 && i < 8 ? Reg(Reg8(i, true)) : Reg(Reg8(i));
      case 1: return Reg16(i);
      case 2: return Reg64(i);
      default: return Reg32(i);
    }
  }
  Reg same_size(const Reg& as) {
    const int i = free_register();
    switch (as.getBit()) {
      case 8: return i >= 4 && i < 8 ? Reg(Reg8(i, true)) : Reg(Reg8(i));
      case 16: return Reg16(i);
      case 32: return Reg32(i);
      default: return Reg64(i);
    }
  }
  int any_disp() {
    // Now and then across two pages.
    return static_cast<int>(random_.one_in(4) ? 0xff8 + random_.below(16) : random_.below(0x2000));
  }
  RegExp place() {
    if (random_.one_in(3)) {
      const int index = free_register();
      movzx(Reg32(index), index >= 4 && index < 8 ? Reg8(index, true) : Reg8(index));
      return rbx + Reg64(index) * 8 + any_disp();
    }
    return rbx + any_disp();
  }
  AddressFrame frame(const Reg& reg) { return AddressFrame(static_cast<uint32_t>(reg.getBit())); }
  uint32_t number() {
    return static_cast<uint32_t>(random_.next() >> (random_.below(4) * 16 + 1)) & 0x7f;
  }

  void arithmetic() {
    const Reg a = sized(), b = same_size(a);
    switch (random_.below(12)) {
      case 0: return add(a, b);
      case 1: return sub(a, b);
      case 2: return adc(a, b);
      case 3: return sbb(a, b);
      case 4: return and_(a, number());
      case 5: return or_(a, b);
      case 6: return xor_(a, b);
      case 7: return cmp(a, number());
      case 8: return test(a, b);
      case 9: return neg(a);
      case 10: return random_.one_in(2) ? inc(a) : dec(a);
      default: return add(a, number());
    }
  }
  void with_memory() {
    const Reg a = sized();
    const RegExp at = place();
    const Address m = frame(a)[at];
    switch (random_.below(12)) {
      case 0: return add(a, m);
      case 1: return sub(m, a);
      case 2: return adc(m, a);
      case 3: return cmp(m, a);
      case 4: return mov(a, m);
      case 5: return mov(m, a);
      case 6: return xor_(m, number());
      case 7: return inc(m);
      case 8: return xchg(m, a);
      case 9: return xadd(m, a);
      case 10: return cmpxchg(m, a);
      default: return sbb(a, m);
    }
  }
  void bits() {
    const Reg a = sized();
    const Reg64 wide = r64(), other = r64();
    switch (random_.below(14)) {
      case 0: return shl(a, static_cast<int>(random_.below(40)));
      case 1: return shr(a, static_cast<int>(random_.below(40)));
      case 2: return sar(a, static_cast<int>(random_.below(40)));
      case 3: return rol(a, static_cast<int>(random_.below(20)));
      case 4: return ror(a, static_cast<int>(random_.below(20)));
      case 5: return shl(a, cl);
      case 6: return sar(a, cl);
      case 7: return bt(wide, other);
      case 8: return bts(wide, static_cast<uint8_t>(random_.below(64)));
      case 9: return bsf(wide, other);
      case 10: return bsr(wide.cvt32(), other.cvt32());
      case 11: return popcnt(wide, other);
      case 12: return shrd(wide, other, static_cast<uint8_t>(random_.below(64)));
      default: return bswap(wide);
    }
  }
  void moves() {
    const Reg64 a = r64(), b = r64();
    switch (random_.below(14)) {
      case 0: return movzx(a, b.cvt16());
      case 1: return movsx(a, b.cvt16());
      case 2: return movsxd(a, b.cvt32());
      case 3: return setc(Reg8(static_cast<int>(random_.below(4)), false));
      case 4: return cmovl(a, b);
      case 5: return cmovnz(a.cvt32(), b.cvt32());
      case 6: return imul(a, b);
      case 7: return imul(a.cvt32(), b.cvt32(), static_cast<int>(number()));
      case 8: return lea(a, ptr[rbx + b * 2 + 5]);
      case 9: return random_.one_in(2) ? cqo() : cdqe();
      case 10: return mov(a, random_.next());
      case 11: return mov(a.cvt32(), static_cast<uint32_t>(random_.next()));
      case 12: return random_.one_in(2) ? mul(b) : imul(b.cvt32());
      default: return xchg(a, b);
    }
  }
  void stack() {
    const Reg64 a = r64(), b = r64();
    switch (random_.below(4)) {
      case 0: push(a), item(9), pop(b); return;
      case 1: pushfq(), pop(a); return;
      case 2: push(static_cast<int>(number())), pop(b); return;
      default: lahf(), setp(dl); return;
    }
  }
  void sse() {
    const Xbyak::Xmm x(static_cast<int>(random_.below(16))), y(static_cast<int>(random_.below(16)));
    const Address m = ptr[rbx + static_cast<int>(random_.below(0x200) * 16)];
    switch (random_.below(14)) {
      case 0: return movaps(x, m);
      case 1: return movups(ptr[place()], x);
      case 2: return addpd(x, y);
      case 3: return mulsd(x, m);
      case 4: return pxor(x, y);
      case 5: return paddd(x, m);
      case 6: return movd(x, r64().cvt32());
      case 7: return movq(r64(), y);
      case 8: return cvtsi2sd(x, r64());
      case 9: return ucomisd(x, y);
      case 10: return movsd(x, m);
      case 11: return pshufd(x, y, static_cast<uint8_t>(random_.next()));
      case 12: return cvttsd2si(r64(), y);
      default: return movaps(x, y);
    }
  }
  void jump_over(unsigned depth) {
    Label over;
    switch (random_.below(6)) {
      case 0: jz(over, T_NEAR); break;
      case 1: jc(over, T_NEAR); break;
      case 2: jl(over, T_NEAR); break;
      case 3: js(over, T_NEAR); break;
      case 4: jp(over, T_NEAR); break;
      default: jmp(over, T_NEAR); break;
    }
    item(depth + 1);
    item(depth + 1);
    L(over);
  }
  // Flags are written, then come blocks that only jump on, then flags are written again: a stop in
  // between still sees the first ones.
  void hop() {
    Label places[4];
    const Reg a = sized();
    const unsigned hops = 1 + static_cast<unsigned>(random_.below(3));
    if (random_.one_in(2)) {
      add(a, number());
    } else {
      cmp(a, same_size(a));
    }
    for (unsigned i = 0; i < hops; ++i) {
      jmp(places[i], random_.one_in(2) ? T_NEAR : T_SHORT);
      if (random_.one_in(2)) nop();
      L(places[i]);
    }
    sub(r64(), r64());
  }
  void loop_around(unsigned depth) {
    Label again;
    mov(r15d, 1 + static_cast<uint32_t>(random_.below(12)));
    L(again);
    item(9);
    item(9);
    if (random_.one_in(2)) jump_over(8);
    if (random_.one_in(2)) hop();
    dec(r15d);
    jnz(again, T_NEAR);
    (void)depth;
  }
  void call_something() {
    Label& function = functions_[random_.below(kFunctions)];
    if (random_.one_in(2)) return call(function);
    lea(rax, ptr[rip + function]);
    call(rax);
  }
  void fault() {
    Label behind;
    lea(r14, ptr[rip + behind]);
    switch (random_.below(4)) {
      case 0: mov(eax, static_cast<uint32_t>(kNowhere)), add(ptr[rax + 8], ecx); break;
      case 1: mov(eax, static_cast<uint32_t>(kNowhere)), movaps(xmm3, ptr[rax]); break;
      case 2: div(r64()); break;
      default: ud2(); break;
    }
    L(behind);
  }
  // Changes the immediate of an instruction that may be in a unit already, before or behind.
  void change_code() {
    Label patched, store;
    const bool behind = random_.one_in(2);
    if (behind) {
      lea(r13, ptr[rip + patched]);
      mov(dword[r13 - 4], ecx);
    }
    mov(r64().cvt32(), static_cast<uint32_t>(random_.next()));
    L(patched);
    if (!behind && random_.one_in(2)) {
      lea(r13, ptr[rip + patched]);
      mov(byte[r13 - 3], cl);
    }
  }
  void rare() {
    switch (random_.below(7)) {
      case 0: return random_.one_in(2) ? sti() : cli();
      case 5: db(0x0f), db(0x05); return;  // SYSCALL; what it leads to comes back by POPFQ
      case 6:
        random_.one_in(2) ? sti() : cli();
        pushfq();
        random_.one_in(2) ? sti() : cli();
        popfq();
        return;
      case 1: mov(rax, cr3_), db(0x0f), db(0x22), db(0xd8); return;
      case 2: db(0x0f), db(0x01), db(0x3b); return;  // INVLPG [RBX]
      case 3:
        lea(rsi, ptr[place()]);
        lea(rdi, ptr[place()]);
        mov(ecx, number());
        rep();
        movsb();
        return;
      default: db(0x0f), db(0xa2), xor_(ebx, ebx), mov(ebx, static_cast<uint32_t>(kDataAt)); return;
    }
  }

  void item(unsigned depth) {
    const uint64_t kind = random_.below(depth >= 8 ? 26 : 36);
    if (kind < 8) return arithmetic();
    if (kind < 14) return with_memory();
    if (kind < 18) return bits();
    if (kind < 22) return moves();
    if (kind < 25) return sse();
    if (kind < 26) return depth >= 9 ? moves() : stack();
    if (kind < 29) return random_.one_in(4) ? hop() : jump_over(depth);
    if (kind < 31) return loop_around(depth);
    if (kind < 33) return depth >= 2 ? arithmetic() : call_something();
    if (kind < 34) return fault();
    if (random_.one_in(3)) return change_code();
    return rare();
  }

  static constexpr unsigned kFunctions = 6;
  const uint64_t cr3_ = 0x10000;  // where the tables are
  pmu::Random random_;
  Label top_, functions_[kFunctions];
};

}  // namespace

std::vector<uint8_t> random_program(uint64_t seed) {
  Program program(seed);
  program.build();
  return {program.getCode(), program.getCode() + program.getSize()};
}

}  // namespace us::lockstep
