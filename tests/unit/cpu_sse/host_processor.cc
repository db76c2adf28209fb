#include "tests/unit/cpu_sse/host_processor.h"

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

namespace us::test {
namespace {

struct alignas(64) FxImage {
  uint16_t control, status;
  uint8_t tags, reserved;
  uint16_t opcode;
  uint64_t ip, dp;
  uint32_t mxcsr, mxcsr_mask;
  struct {
    uint64_t mantissa;
    uint16_t exponent;
    uint16_t pad[3];
  } st[8];
  hv::Xmm xmm[16];
  uint8_t rest[96];
};
static_assert(sizeof(FxImage) == 512);

// Known by its offsets to the assembly below.
struct Frame {
  FxImage before;    // 0
  FxImage after;     // 512
  uint64_t gpr[16];  // 1024
  uint64_t flags;    // 1152
  const void* code;  // 1160
  int signal;        // 1168
};
static_assert(offsetof(Frame, gpr) == 1024 && offsetof(Frame, flags) == 1152 &&
              offsetof(Frame, code) == 1160);

}  // namespace
}  // namespace us::test

extern "C" void us_run_on_host(void* frame);
extern "C" const char us_host_fault_exit[];

// Everything a function may not change is kept on the stack; R15 holds the frame throughout.
asm(R"(
  .pushsection .text
  .globl us_run_on_host, us_host_fault_exit
  .type us_run_on_host, @function
us_run_on_host:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rdi, %r15
  fxrstor64 (%r15)
  pushq 1152(%r15)
  popfq
  movq 1024(%r15), %rax
  movq 1032(%r15), %rcx
  movq 1040(%r15), %rdx
  movq 1048(%r15), %rbx
  movq 1064(%r15), %rbp
  movq 1072(%r15), %rsi
  movq 1080(%r15), %rdi
  movq 1088(%r15), %r8
  movq 1096(%r15), %r9
  movq 1104(%r15), %r10
  movq 1112(%r15), %r11
  movq 1120(%r15), %r12
  movq 1128(%r15), %r13
  movq 1136(%r15), %r14
  call *1160(%r15)
  fxsave64 512(%r15)
  movq %rax, 1024(%r15)
  movq %rcx, 1032(%r15)
  movq %rdx, 1040(%r15)
  movq %rbx, 1048(%r15)
  movq %rbp, 1064(%r15)
  movq %rsi, 1072(%r15)
  movq %rdi, 1080(%r15)
  movq %r8, 1088(%r15)
  movq %r9, 1096(%r15)
  movq %r10, 1104(%r15)
  movq %r11, 1112(%r15)
  movq %r12, 1120(%r15)
  movq %r13, 1128(%r15)
  movq %r14, 1136(%r15)
  pushfq
  popq 1152(%r15)
us_host_fault_exit:
  fninit
  pushq $0x1f80
  ldmxcsr (%rsp)
  popq %rax
  cld
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size us_run_on_host, . - us_run_on_host
  .popsection
)");

namespace us::test {
namespace {

// gregs index of each general register, in encoding order.
constexpr int kGregs[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                            REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

class Host {
 public:
  static Host& instance() {
    static Host host;
    return host;
  }

  Outcome run(MachineState& s, std::span<const uint8_t> code, unsigned offset) {
    std::memcpy(code_, code.data(), code.size());
    code_[code.size()] = 0xc3;
    uint8_t* const window = pages_ + 4096 - kWindowSize / 2;
    std::memcpy(window, s.window.data(), kWindowSize);
    Frame frame{};
    load(s, frame);
    frame.gpr[3] = frame.gpr[7] = reinterpret_cast<uint64_t>(window + offset);
    frame.code = code_;
    current_ = &frame;
    install(true);
    us_run_on_host(&frame);
    install(false);
    current_ = nullptr;
    std::memcpy(s.window.data(), window, kWindowSize);
    store(frame, s);
    switch (frame.signal) {
      case 0: return Outcome::kDone;
      case SIGFPE: return Outcome::kSimdError;
      case SIGILL: return Outcome::kUndefined;
      default: return Outcome::kGeneralProtection;
    }
  }

 private:
  Host() {
    code_ = map(PROT_READ | PROT_WRITE | PROT_EXEC, 4096);
    pages_ = map(PROT_READ | PROT_WRITE, 8192);
  }
  static uint8_t* map(int protection, size_t size) {
    void* at = mmap(nullptr, size, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) std::abort();
    return static_cast<uint8_t*>(at);
  }

  static void load(const MachineState& s, Frame& f) {
    f.before.control = 0x37f;
    f.before.status = static_cast<uint16_t>(s.top << 11);
    f.before.tags = s.valid;
    f.before.mxcsr = s.mxcsr;
    for (unsigned i = 0; i < 8; ++i) {
      f.before.st[i].mantissa = s.mm[(s.top + i) & 7];
      f.before.st[i].exponent = s.mm_high[(s.top + i) & 7];
    }
    for (unsigned i = 0; i < 16; ++i) f.before.xmm[i] = s.xmm[i];
    for (unsigned i = 0; i < 16; ++i) f.gpr[i] = s.gpr[i];
    f.flags = s.flags;
  }
  static void store(const Frame& f, MachineState& s) {
    s.top = (f.after.status >> 11) & 7;
    s.valid = f.after.tags;
    s.mxcsr = f.after.mxcsr;
    for (unsigned i = 0; i < 8; ++i) {
      s.mm[(s.top + i) & 7] = f.after.st[i].mantissa;
      s.mm_high[(s.top + i) & 7] = f.after.st[i].exponent;
    }
    for (unsigned i = 0; i < 16; ++i) s.xmm[i] = f.after.xmm[i];
    for (unsigned i = 0; i < 16; ++i) s.gpr[i] = f.gpr[i];
    s.flags = f.flags;
  }

  void install(bool ours) {
    static constexpr int kSignals[] = {SIGFPE, SIGSEGV, SIGILL, SIGBUS};
    for (unsigned i = 0; i < std::size(kSignals); ++i) {
      struct sigaction action = {};
      action.sa_sigaction = &on_signal;
      action.sa_flags = SA_SIGINFO;
      if (ours)
        sigaction(kSignals[i], &action, &previous_[i]);
      else
        sigaction(kSignals[i], &previous_[i], nullptr);
    }
  }

  // Keeps the registers of the faulting instruction and leaves the assembly by its exit.
  static void on_signal(int number, siginfo_t*, void* context) {
    auto* u = static_cast<ucontext_t*>(context);
    auto& registers = u->uc_mcontext.gregs;
    if (current_ == nullptr) _exit(99);
    Frame& f = *current_;
    std::memcpy(&f.after, u->uc_mcontext.fpregs, sizeof f.after);
    for (unsigned i = 0; i < 16; ++i) f.gpr[i] = static_cast<uint64_t>(registers[kGregs[i]]);
    f.flags = static_cast<uint64_t>(registers[REG_EFL]);
    f.signal = number;
    registers[REG_RIP] = reinterpret_cast<greg_t>(us_host_fault_exit);
    registers[REG_RSP] += 8;  // the call's return address
    u->uc_mcontext.fpregs->mxcsr = 0x1f80;
  }

  uint8_t* code_ = nullptr;
  uint8_t* pages_ = nullptr;
  struct sigaction previous_[4] = {};
  static inline Frame* current_ = nullptr;
};

}  // namespace

Outcome run_on_host(MachineState& state, std::span<const uint8_t> code, unsigned offset) {
  return Host::instance().run(state, code, offset);
}

}  // namespace us::test
