#include "tests/differential/native.h"

#include <asm/prctl.h>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

namespace us::differential {
namespace {

// Order of gregs for our register numbers.
constexpr int kGregs[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                            REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
constexpr size_t kFloatBytes = 512 + 64;  // FXSAVE image and XSAVE header in the signal frame
constexpr unsigned kTimeLimitSeconds = 5;

// The child's own state; it has one thread.
struct Child {
  Bank* bank = nullptr;
  bool running = false, in_handler = false;
  gregset_t own;
  uint8_t own_float[kFloatBytes];
} child;

void load(ucontext_t& uc, const Snapshot& s) {
  mcontext_t& m = uc.uc_mcontext;
  for (int i = 0; i < 16; ++i) m.gregs[kGregs[i]] = static_cast<greg_t>(s.gpr[i]);
  m.gregs[REG_RIP] = static_cast<greg_t>(s.rip);
  m.gregs[REG_EFL] = static_cast<greg_t>(s.rflags);
  auto& f = *m.fpregs;
  f.cwd = s.fcw;
  f.swd = s.fsw;
  f.ftw = s.ftw;
  f.fop = 0;
  f.rip = f.rdp = 0;
  f.mxcsr = s.mxcsr;
  std::memcpy(f._st, s.st, sizeof s.st);
  std::memcpy(f._xmm, s.xmm, sizeof s.xmm);
  auto* xstate_bv = reinterpret_cast<uint64_t*>(reinterpret_cast<uint8_t*>(&f) + 512);
  *xstate_bv |= 3;
  std::memcpy(reinterpret_cast<void*>(kDataWindowAt), s.data, kDataWindow);
  std::memcpy(reinterpret_cast<void*>(kStackWindowAt), s.stack, kStackWindow);
}

void store(const ucontext_t& uc, Snapshot& s, int signal) {
  const mcontext_t& m = uc.uc_mcontext;
  for (int i = 0; i < 16; ++i) s.gpr[i] = static_cast<uint64_t>(m.gregs[kGregs[i]]);
  s.rip = static_cast<uint64_t>(m.gregs[REG_RIP]);
  s.rflags = static_cast<uint64_t>(m.gregs[REG_EFL]);
  s.vector = signal == SIGALRM ? kHung : static_cast<uint64_t>(m.gregs[REG_TRAPNO]);
  s.error = static_cast<uint64_t>(m.gregs[REG_ERR]);
  s.cr2 = static_cast<uint64_t>(m.gregs[REG_CR2]);
  const auto& f = *m.fpregs;
  s.fcw = f.cwd;
  s.fsw = f.swd;
  s.ftw = f.ftw;
  s.mxcsr = f.mxcsr;
  std::memcpy(s.st, f._st, sizeof s.st);
  for (auto& r : s.st) std::memset(r.pad, 0, sizeof r.pad);
  std::memcpy(s.xmm, f._xmm, sizeof s.xmm);
  std::memcpy(s.data, reinterpret_cast<void*>(kDataWindowAt), kDataWindow);
  std::memcpy(s.stack, reinterpret_cast<void*>(kStackWindowAt), kStackWindow);
}

void set_time_limit(unsigned seconds) {
  const itimerval limit{{0, 0}, {static_cast<time_t>(seconds), 0}};
  setitimer(ITIMER_REAL, &limit, nullptr);
}

void on_signal(int signal, siginfo_t*, void* context) {
  // A test may have turned on alignment checks, or NT and ID, which returning from a signal keeps.
  asm volatile("pushfq\n\tandq $~0x244000, (%%rsp)\n\tpopfq" : : : "memory", "cc");
  auto& uc = *static_cast<ucontext_t*>(context);
  auto* own_float = reinterpret_cast<uint8_t*>(uc.uc_mcontext.fpregs);
  if (child.in_handler) _exit(3);
  child.in_handler = true;
  Bank& bank = *child.bank;
  unsigned at = bank.current.load(std::memory_order_relaxed);
  if (!child.running) {
    if (signal != SIGTRAP) _exit(4);
    std::memcpy(child.own, uc.uc_mcontext.gregs, sizeof child.own);
    std::memcpy(child.own_float, own_float, kFloatBytes);
    child.running = true;
  } else {
    store(uc, bank.after[at], signal);
    bank.current.store(++at, std::memory_order_relaxed);
    if (signal == SIGALRM) set_time_limit(kTimeLimitSeconds);
  }
  if (at < bank.count) {
    load(uc, bank.before[at]);
  } else {
    std::memcpy(uc.uc_mcontext.gregs, child.own, sizeof child.own);
    std::memcpy(own_float, child.own_float, kFloatBytes);
    child.running = false;
  }
  child.in_handler = false;
}

void install_handlers() {
  static uint8_t alternate[1 << 16];
  stack_t stack{};
  stack.ss_sp = alternate;
  stack.ss_size = sizeof alternate;
  sigaltstack(&stack, nullptr);
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (const int signal : {SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGALRM})
    sigaction(signal, &action, nullptr);
}

void* map(uint64_t at, size_t size, int protection, int fd, off_t offset = 0) {
  const int fixed = at != 0 ? MAP_FIXED_NOREPLACE : 0;
  void* p = mmap(reinterpret_cast<void*>(at), size, protection, MAP_SHARED | fixed, fd, offset);
  if (p == MAP_FAILED || (at != 0 && p != reinterpret_cast<void*>(at))) {
    std::perror("differential: mmap");
    std::exit(2);
  }
  return p;
}

int shared_file(const char* name, size_t size) {
  const int fd = memfd_create(name, 0);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(size)) != 0) {
    std::perror("differential: memfd_create");
    std::exit(2);
  }
  return fd;
}

[[noreturn]] void serve(Bank* banks, int commands, int answers) {
  install_handlers();
  syscall(SYS_arch_prctl, ARCH_SET_GS, kGsBase);
  for (uint8_t which; read(commands, &which, 1) == 1;) {
    child.bank = &banks[which];
    child.bank->current.store(child.bank->first);
    set_time_limit(kTimeLimitSeconds);
    asm volatile("int3" : : : "memory");
    set_time_limit(0);
    if (write(answers, &which, 1) != 1) break;
  }
  _exit(0);
}

}  // namespace

Native::Native() {
  code_fd_ = shared_file("code", kCodeSize);
  data_fd_ = shared_file("data", (kDataPages + 1) * kPage);
  stack_fd_ = shared_file("stack", kStackPages * kPage);
  constexpr int kBoth = PROT_READ | PROT_WRITE;
  code_ = static_cast<uint8_t*>(map(0, kCodeSize, kBoth, code_fd_));
  data_ = static_cast<uint8_t*>(map(0, (kDataPages + 1) * kPage, kBoth, data_fd_));
  stack_ = static_cast<uint8_t*>(map(0, kStackPages * kPage, kBoth, stack_fd_));
  void* shared = mmap(nullptr, sizeof(Bank) * kBanks, kBoth, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) std::exit(2);
  banks_ = static_cast<Bank*>(shared);
  spawn();
}

void Native::spawn() {
  int commands[2], answers[2];
  if (pipe(commands) != 0 || pipe(answers) != 0) std::exit(2);
  child_ = fork();
  if (child_ == 0) {
    close(commands[1]);
    close(answers[0]);
    map(kCodeBase, kCodeSize, PROT_READ | PROT_EXEC, code_fd_);
    map(kDataBase, kDataPages * kPage, PROT_READ | PROT_WRITE, data_fd_);
    map(kReadOnlyPage, kPage, PROT_READ, data_fd_, kDataPages * kPage);
    map(kStackBase, kStackPages * kPage, PROT_READ | PROT_WRITE, stack_fd_);
    // Present before the first store to it faults.
    (void)*reinterpret_cast<volatile uint8_t*>(kReadOnlyPage);
    serve(banks_, commands[0], answers[1]);
  }
  close(commands[0]);
  close(answers[1]);
  to_child_ = commands[1];
  from_child_ = answers[0];
}

Native::~Native() {
  close(to_child_);
  close(from_child_);
  waitpid(child_, nullptr, 0);
}

void Native::start(unsigned bank) {
  const auto which = static_cast<uint8_t>(bank);
  if (write(to_child_, &which, 1) != 1) std::perror("differential: the child is gone");
}

bool Native::finish() {
  uint8_t which;
  return read(from_child_, &which, 1) == 1;
}

}  // namespace us::differential
