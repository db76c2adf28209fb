#include "hv/kvm/self_test.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "hv/cpu/state_bytes.h"

namespace us::hv::kvm {
namespace {

constexpr uint64_t kMemoryBytes = 2u << 20;
constexpr uint64_t kTables = 0x1000, kCode = 0x8000, kStack = 0x7000, kIdt = 0x4000, kGdt = 0x5000;
constexpr uint16_t kCodeSelector = 8;
constexpr uint8_t kEcho = 0x80;  // a port that nobody minds
constexpr uint64_t kNotTakenRun = 64;

// Devices that answer with nothing.
class QuietBus final : public Bus {
 public:
  uint32_t pio_read(uint16_t, unsigned) override { return ~0u; }
  void pio_write(uint16_t, unsigned, uint32_t) override {}
  uint64_t mmio_read(GuestPhys, unsigned) override { return ~uint64_t{0}; }
  void mmio_write(GuestPhys, unsigned, uint64_t) override {}
  bool msr_read(uint32_t index, uint64_t& value) override {
    value = 0xfee0'0900;  // the local APIC's base, after reset
    return index == 0x1b;
  }
  bool msr_write(uint32_t, uint64_t) override { return false; }
  uint8_t task_priority() override { return 0; }
  void set_task_priority(uint8_t) override {}
  GuestTsc tsc(Branches now) override { return GuestTsc(now.value); }
  void set_tsc(Branches, GuestTsc) override {}
  bool take_attention() override { return false; }
};

void put(Bytes& code, std::initializer_list<unsigned> bytes) {
  for (const unsigned byte : bytes) code.push_back(static_cast<uint8_t>(byte));
}

void put_load_counter(Bytes& code, uint64_t count) {  // MOV ECX, imm32
  put(code, {0xb9, static_cast<unsigned>(count & 0xff), static_cast<unsigned>(count >> 8 & 0xff),
             static_cast<unsigned>(count >> 16 & 0xff), static_cast<unsigned>(count >> 24 & 0xff)});
}

// Closes a loop that began at `start`: DEC ECX; JNZ start, in its long form.
void put_loop_end(Bytes& code, size_t start) {
  put(code, {0xff, 0xc9, 0x0f, 0x85});
  const auto back = static_cast<uint32_t>(start - (code.size() + 4));
  put(code, {back & 0xff, back >> 8 & 0xff, back >> 16 & 0xff, back >> 24});
}

// The guest's code, and how many conditional branches it retires up to its HLT.
struct Program {
  Bytes code;
  uint64_t branches = 0;
};

Program taken(uint64_t branches) {
  Program p;
  put_load_counter(p.code, branches);
  put_loop_end(p.code, p.code.size());
  p.branches = branches;
  put(p.code, {0xf4});
  return p;
}

Program not_taken(uint64_t branches) {
  const uint64_t rounds = branches / (kNotTakenRun + 1) + 1;
  Program p;
  put_load_counter(p.code, rounds);
  const size_t start = p.code.size();
  put(p.code, {0x31, 0xc0});                                              // XOR EAX, EAX: ZF
  for (uint64_t i = 0; i < kNotTakenRun; ++i) put(p.code, {0x75, 0x00});  // JNZ, to the next
  put_loop_end(p.code, start);
  p.branches = rounds * (kNotTakenRun + 1);
  put(p.code, {0xf4});
  return p;
}

Program mixed(uint64_t branches) {
  constexpr uint64_t kEach = 4;
  const uint64_t rounds = branches / kEach + 1;
  Program p;
  put_load_counter(p.code, rounds);
  const size_t start = p.code.size();
  put(p.code, {0xf6, 0xc1, 0x01});        // TEST CL, 1
  put(p.code, {0x75, 0x00});              // JNZ, to the next: every other time
  put(p.code, {0xe6, kEcho});             // OUT
  put(p.code, {0xf6, 0xc1, 0x02});        // TEST CL, 2
  put(p.code, {0x74, 0x02, 0x0f, 0x0b});  // JZ over UD2
  put(p.code, {0xe3, 0x00});              // JRCXZ, never taken
  put_loop_end(p.code, start);
  p.branches = rounds * kEach;
  put(p.code, {0xf4});
  return p;
}

Program program_for(Loop loop, uint64_t branches) {
  switch (loop) {
    case Loop::kTaken: return taken(branches);
    case Loop::kNotTaken: return not_taken(branches);
    case Loop::kMixed: return mixed(branches);
  }
  US_CHECK(false, "no such loop");
}

// Long mode with the first 2 MiB mapped, and one handler: past UD2, back.
void lay_out(GuestMemory& memory, const Bytes& code) {
  const auto put_words = [&memory](uint64_t at, std::initializer_list<uint64_t> words) {
    ByteWriter out;
    for (const uint64_t word : words) out.put(word);
    US_CHECK(memory.write(GuestPhys(at), out.bytes()));
  };
  put_words(kTables, {(kTables + 0x1000) | 3});
  put_words(kTables + 0x1000, {(kTables + 0x2000) | 3});
  put_words(kTables + 0x2000, {0x83});  // one large page
  put_words(kGdt, {0, 0x00af'9b00'0000'ffff, 0x00cf'9300'0000'ffff});
  const uint64_t handler = kCode - 0x100;
  // ADD QWORD [RSP], 2; IRETQ
  US_CHECK(memory.write(GuestPhys(handler), Bytes{0x48, 0x83, 0x04, 0x24, 0x02, 0x48, 0xcf}));
  put_words(kIdt + kInvalidOpcode * 16,
            {(handler & 0xffff) | uint64_t{kCodeSelector} << 16 | 0x8e00ull << 32, 0});
  US_CHECK(memory.write(GuestPhys(kCode), code));
}

CpuState entry_state() {
  CpuState s;
  s.rip = kCode;
  s.regs[kRsp] = kStack;
  s.cr0 = cr0::kPg | cr0::kWp | cr0::kNe | cr0::kEt | cr0::kPe;
  s.cr3 = kTables;
  s.cr4 = cr4::kPae;
  s.efer = efer::kLme | efer::kLma;
  s.gdtr = {.base = kGdt, .limit = 23};
  s.idtr = {.base = kIdt, .limit = 0xfff};
  s.seg[kCs] = {.limit = 0xffff'ffff, .access = 0xa09b, .selector = kCodeSelector};
  for (const Seg seg : {kEs, kSs, kDs, kFs, kGs})
    s.seg[seg] = {.limit = 0xffff'ffff, .access = 0xc093, .selector = 16};
  s.tr = {.limit = 0x67, .access = 0x8b, .selector = 0};
  s.ldtr = {.limit = 0xffff, .access = 0x82, .selector = 0};
  return s;
}

// Memory, bus and vCPU with the program in place.
struct Guest {
  QuietBus bus;
  std::unique_ptr<GuestMemory> memory;
  std::unique_ptr<KvmVcpu> vcpu;
};

Status make(Guest& guest, KvmHost& host, const KvmOptions& options, const Bytes& code) {
  auto memory = GuestMemory::create(kMemoryBytes);
  if (!memory.ok()) return memory.error();
  guest.memory = std::move(memory).value();
  lay_out(*guest.memory, code);
  KvmOptions wanted = options;
  wanted.cooperative = true;  // this guest reads no clock
  auto vcpu = KvmVcpu::create(host, *guest.memory, guest.bus, wanted);
  if (!vcpu.ok()) return vcpu.error();
  guest.vcpu = std::move(vcpu).value();
  ByteWriter state;
  put_state(entry_state(), state);
  ByteReader in(state.bytes());
  return guest.vcpu->load(in);
}

UserError went_astray(const KvmVcpu& vcpu, StopReason reason) {
  return {.id = "KVM-010",
          .exit_code = ExitCode::kHostCannot,
          .what = "the self-test's guest did not come to its end",
          .seen = fmt::format("stop {} at rip {:#x}", static_cast<int>(reason), vcpu.point().rip),
          .needed = "a KVM that executes a loop",
          .mend = "report this with the output of `understudy hostcheck --json`"};
}

// Kicks until it is told to stop.
class Storm {
 public:
  explicit Storm(Vcpu& vcpu)
      : thread_([this, &vcpu] {
          while (!stop_.load()) {
            vcpu.kick();
            std::this_thread::sleep_for(std::chrono::microseconds(100));
          }
        }) {}
  ~Storm() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace

const char* name_of(Loop loop) {
  switch (loop) {
    case Loop::kTaken: return "taken";
    case Loop::kNotTaken: return "not taken";
    case Loop::kMixed: return "mixed";
  }
  return "";
}

Result<LoopResult> run_loop(KvmHost& host, const KvmOptions& options, Loop loop, uint64_t branches,
                            bool storm) {
  const Program program = program_for(loop, branches);
  Guest guest;
  if (Status s = make(guest, host, options, program.code); !s.ok()) return s.error();
  KvmVcpu& vcpu = *guest.vcpu;
  StopReason reason = StopReason::kKicked;
  {
    std::optional<Storm> kicks;
    if (storm) kicks.emplace(vcpu);
    // An alarm now and then, so that the counter interrupts too.
    const uint64_t alarm_every = std::max<uint64_t>(branches / 20, 100);
    while (reason == StopReason::kKicked || reason == StopReason::kAlarm)
      reason = vcpu.run({.alarm = vcpu.branches() + alarm_every});
  }
  if (reason == StopReason::kFailed) return *vcpu.failure();
  const uint64_t end = kCode + program.code.size();
  if (reason != StopReason::kHalted || vcpu.point().rip != end) return went_astray(vcpu, reason);
  return LoopResult{.expected = program.branches,
                    .counted = vcpu.branches().value,
                    .exits = vcpu.statistics().runs};
}

Result<BreakpointResult> try_breakpoint(KvmHost& host) {
  // With a counter that counts nothing the guest runs freely, on hosts without a real one too.
  KvmOptions options;
  options.counter = [](int) -> Result<std::unique_ptr<pmu::Counter>> {
    return std::unique_ptr<pmu::Counter>(std::make_unique<StepCounter>());
  };
  Bytes code;
  put_load_counter(code, 3);
  const size_t start = code.size();
  put(code, {0x90, 0xff, 0xc3});  // NOP; INC EBX, where the breakpoint is
  put_loop_end(code, start);
  put(code, {0xf4});
  Guest guest;
  if (Status s = make(guest, host, options, code); !s.ok()) return s.error();
  KvmVcpu& vcpu = *guest.vcpu;
  const uint64_t target = kCode + start + 1;
  const RunRequest request{.has_breakpoint = true, .breakpoint = target};
  const auto stops_with = [&](uint64_t count) {
    const StopReason reason = vcpu.run(request);
    return reason == StopReason::kBreakpoint && vcpu.point().rip == target &&
           vcpu.registers().gpr[kRbx] == count;
  };
  BreakpointResult result;
  result.stopped_before = stops_with(0);
  result.went_on = stops_with(1);
  if (vcpu.failure()) return *vcpu.failure();
  return result;
}

}  // namespace us::hv::kvm
