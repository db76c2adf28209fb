#include "tests/unit/cpu_int/host.h"

#include <cstring>
#include <setjmp.h>
#include <signal.h>
#include <stdexcept>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

namespace us::test {
namespace {

constexpr size_t kPageBytes = 8192, kState = 4096, kDataBytes = 0x4000;
constexpr size_t kFlagsAt = kState + 128, kStackAt = kState + 136;
constexpr size_t kMostCode = 48;

sigjmp_buf g_return;
Machine* g_faulted = nullptr;

void on_fault(int signal, siginfo_t*, void* context) {
  static constexpr int kOrder[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                     REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                     REG_R12, REG_R13, REG_R14, REG_R15};
  const auto& from = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  for (unsigned i = 0; i < 16; ++i) g_faulted->regs[i] = static_cast<uint64_t>(from[kOrder[i]]);
  g_faulted->flags = static_cast<uint64_t>(from[REG_EFL]);
  siglongjmp(g_return, signal);
}

// Signals arrive while RSP is whatever the test wants it to be.
class FaultScope {
 public:
  FaultScope() : stack_(65536) {
    stack_t alternative{};
    alternative.ss_sp = stack_.data();
    alternative.ss_size = stack_.size();
    sigaltstack(&alternative, &old_stack_);
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGFPE, &action, &old_fpe_);
    sigaction(SIGSEGV, &action, &old_segv_);
  }
  ~FaultScope() {
    sigaction(SIGFPE, &old_fpe_, nullptr);
    sigaction(SIGSEGV, &old_segv_, nullptr);
    if (old_stack_.ss_size == 0) old_stack_.ss_flags = SS_DISABLE;
    sigaltstack(&old_stack_, nullptr);
  }
  FaultScope(const FaultScope&) = delete;
  FaultScope& operator=(const FaultScope&) = delete;

 private:
  std::vector<uint8_t> stack_;
  stack_t old_stack_{};
  struct sigaction old_fpe_ {
  }, old_segv_{};
};

class Assembler {
 public:
  explicit Assembler(uint8_t* page) : page_(page) {}
  void bytes(std::span<const uint8_t> code) {
    std::memcpy(page_ + at_, code.data(), code.size());
    at_ += code.size();
  }
  void bytes(std::initializer_list<uint8_t> code) {
    bytes(std::span<const uint8_t>(code.begin(), code.size()));
  }
  // An instruction whose last bytes are the distance to `target` within the page.
  void relative(std::initializer_list<uint8_t> code, size_t target) {
    bytes(code);
    const auto distance = static_cast<int32_t>(target) - static_cast<int32_t>(at_ + 4);
    std::memcpy(page_ + at_, &distance, 4);
    at_ += 4;
  }
  void load(unsigned reg) { move(0x8b, reg); }
  void store(unsigned reg) { move(0x89, reg); }

 private:
  void move(uint8_t opcode, unsigned reg) {
    relative({static_cast<uint8_t>(reg < 8 ? 0x48 : 0x4c), opcode,
              static_cast<uint8_t>(5 | (reg & 7) << 3)},
             kState + 8 * reg);
  }
  uint8_t* page_;
  size_t at_ = 0;
};

void assemble(uint8_t* page, std::span<const uint8_t> code) {
  Assembler a(page);
  a.bytes({0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57});  // push callee-saved
  a.relative({0x48, 0x89, 0x25}, kStackAt);
  a.relative({0xff, 0x35}, kFlagsAt);  // push flags
  a.bytes({0x9d});                     // popf
  for (unsigned i = 0; i < 16; ++i) a.load(i);
  a.bytes(code);
  for (unsigned i = 0; i < 16; ++i) a.store(i);
  a.relative({0x48, 0x8b, 0x25}, kStackAt);
  a.bytes({0x9c});                     // pushf
  a.relative({0x8f, 0x05}, kFlagsAt);  // pop flags
  a.bytes({0xfc, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3});
}

}  // namespace

Host::Host() {
  void* page = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE | PROT_EXEC,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  void* data = mmap(reinterpret_cast<void*>(kData), kDataBytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (page == MAP_FAILED || data == MAP_FAILED)
    throw std::runtime_error("the host refused the test's memory");
  page_ = static_cast<uint8_t*>(page);
  data_ = static_cast<uint8_t*>(data);
}
Host::~Host() {
  munmap(page_, kPageBytes);
  munmap(data_, kDataBytes);
}

Outcome Host::run(Machine& m, std::span<const uint8_t> code) {
  if (code.size() > kMostCode) throw std::runtime_error("code too long");
  const FaultScope faults;
  std::memcpy(page_ + kState, m.regs.data(), 128);
  const uint64_t flags = m.flags | 0x202;
  std::memcpy(page_ + kFlagsAt, &flags, 8);
  auto* window = reinterpret_cast<uint8_t*>(kWindow);
  std::memcpy(window, m.window.data(), kWindowSize);
  assemble(page_, code);
  g_faulted = &m;
  const int signal = sigsetjmp(g_return, 1);
  if (signal == 0) {
    reinterpret_cast<void (*)()>(page_)();
    std::memcpy(m.regs.data(), page_ + kState, 128);
    std::memcpy(&m.flags, page_ + kFlagsAt, 8);
  }
  m.flags = (m.flags & (kArithmeticFlags | kDirection)) | 2;
  std::memcpy(m.window.data(), window, kWindowSize);
  if (signal == 0) return Outcome::kDone;
  return signal == SIGFPE ? Outcome::kDivideError : Outcome::kMemoryFault;
}

}  // namespace us::test
