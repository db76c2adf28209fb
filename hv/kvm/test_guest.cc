#include "hv/kvm/test_guest.h"

#include "hv/cpu/state_bytes.h"

namespace us::hv::kvm {
namespace {

constexpr uint64_t kLargePage = 2u << 20;
constexpr uint64_t kTables = 0x1000, kIdt = 0x4000, kGdt = 0x5000;
constexpr uint16_t kCodeSelector = 8;

// Long mode with all memory mapped by large pages, and one handler: past UD2, back.
void lay_out(GuestMemory& memory, const Bytes& code) {
  const auto put_words = [&memory](uint64_t at, std::initializer_list<uint64_t> words) {
    ByteWriter out;
    for (const uint64_t word : words) out.put(word);
    US_CHECK(memory.write(GuestPhys(at), out.bytes()));
  };
  put_words(kTables, {(kTables + 0x1000) | 3});
  put_words(kTables + 0x1000, {(kTables + 0x2000) | 3});
  for (uint64_t at = 0; at < memory.size(); at += kLargePage)
    put_words(kTables + 0x2000 + at / kLargePage * 8, {at | 0x83});
  put_words(kGdt, {0, 0x00af'9b00'0000'ffff, 0x00cf'9300'0000'ffff});
  const uint64_t handler = kTestCode - 0x100;
  // ADD QWORD [RSP], 2; IRETQ
  US_CHECK(memory.write(GuestPhys(handler), Bytes{0x48, 0x83, 0x04, 0x24, 0x02, 0x48, 0xcf}));
  put_words(kIdt + kInvalidOpcode * 16,
            {(handler & 0xffff) | uint64_t{kCodeSelector} << 16 | 0x8e00ull << 32, 0});
  US_CHECK(memory.write(GuestPhys(kTestCode), code));
}

CpuState entry_state() {
  CpuState s;
  s.rip = kTestCode;
  s.regs[kRsp] = kTestStack;
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

}  // namespace

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

Status make_test_guest(TestGuest& guest, KvmHost& host, const KvmOptions& options,
                       const Bytes& code, uint64_t memory_bytes) {
  US_CHECK(memory_bytes % kLargePage == 0 && memory_bytes <= 512 * kLargePage, "{} bytes",
           memory_bytes);
  auto memory = GuestMemory::create(memory_bytes);
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

}  // namespace us::hv::kvm
