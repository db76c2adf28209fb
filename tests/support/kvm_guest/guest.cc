#include "tests/support/kvm_guest/guest.h"

#include "hv/boot/load_context.h"
#include "hv/boot_vcpu.h"
#include "hv/cpu/flags.h"
#include "hv/cpu/state_bytes.h"
#include "logchannel/memory_log.h"
#include "replay-engine/live_source.h"
#include "replay-engine/log_source.h"
#include "replay-engine/recorder.h"
#include "replay-engine/run_loop.h"

extern "C" const uint8_t kvm_payload_begin[], kvm_payload_end[];

namespace us::hv::kvm::test {
namespace {

constexpr uint64_t kEntry = 0x10'0000;
constexpr uint64_t kMinimumPeriod = 32;  // branches

}  // namespace

std::unique_ptr<Machine> soft_machine(OutputSink& world, uint64_t memory_bytes) {
  auto made = Machine::create({.memory_bytes = memory_bytes, .platform = {}}, world);
  US_CHECK(made.ok());
  return std::move(made).value();
}

void load_code(Machine& machine, const uint8_t* begin, const uint8_t* end, uint64_t argument) {
  US_CHECK(machine.memory().write(GuestPhys(kEntry), {begin, end}));
  BootState state = long_mode_state(machine.memory(), kEntry);
  state.gpr[14] = argument;
  enter_boot_state(machine.vcpu(), state);
}

void load_payload(Machine& machine, uint64_t rounds) {
  load_code(machine, kvm_payload_begin, kvm_payload_end, rounds);
}

namespace {

CpuState registers_of(Machine& machine) {
  ByteWriter bytes;
  machine.vcpu().digest_state(bytes);
  CpuState state;
  ByteReader in(bytes.bytes());
  US_CHECK(get_state(state, in).ok());
  state.instructions = 0;
  // Which backends see by themselves: KVM takes and gives RF with debugging only.
  state.rflags_other &= ~flag::kRf;
  // Parts differ in whether they keep the opcode of instructions that raise nothing. SDM 1 8.1.9
  state.fpu.opcode = 0;
  // The hidden part of a segment that may not be used is whatever was there.
  for (Segment& s : state.seg)
    if (!s.present()) s.limit = 0;
  return state;
}

}  // namespace

std::string differences(Machine& a, Machine& b) {
  const CpuState x = registers_of(a), y = registers_of(b);
  std::string out;
  const auto field = [&out](const char* name, uint64_t left, uint64_t right) {
    if (left != right) out += fmt::format("{}: {:#x} and {:#x}\n", name, left, right);
  };
  for (unsigned i = 0; i < 16; ++i) field("register", x.regs[i], y.regs[i]);
  field("rip", x.rip, y.rip), field("rflags", rflags(x), rflags(y));
  field("branches", x.branches, y.branches);
  for (unsigned i = 0; i < kSegCount; ++i) {
    field("base", x.seg[i].base, y.seg[i].base), field("limit", x.seg[i].limit, y.seg[i].limit);
    field("access", x.seg[i].access, y.seg[i].access);
    field("selector", x.seg[i].selector, y.seg[i].selector);
  }
  field("tr access", x.tr.access, y.tr.access), field("tr limit", x.tr.limit, y.tr.limit);
  field("ldtr access", x.ldtr.access, y.ldtr.access);
  field("ldtr limit", x.ldtr.limit, y.ldtr.limit);
  field("gdt", x.gdtr.limit, y.gdtr.limit), field("idt", x.idtr.limit, y.idtr.limit);
  field("cr0", x.cr0, y.cr0), field("cr2", x.cr2, y.cr2), field("cr3", x.cr3, y.cr3);
  field("cr4", x.cr4, y.cr4), field("efer", x.efer, y.efer), field("xcr0", x.xcr0, y.xcr0);
  field("dr6", x.dr6, y.dr6), field("dr7", x.dr7, y.dr7), field("mxcsr", x.mxcsr, y.mxcsr);
  field("fpu control", x.fpu.control, y.fpu.control);
  field("fpu status", x.fpu.status, y.fpu.status), field("fpu valid", x.fpu.valid, y.fpu.valid);
  field("fpu opcode", x.fpu.opcode, y.fpu.opcode), field("fpu ip", x.fpu.ip, y.fpu.ip);
  field("fpu dp", x.fpu.dp, y.fpu.dp);
  for (unsigned i = 0; i < 8; ++i) {
    field("st mantissa", x.fpu.reg[i].mantissa, y.fpu.reg[i].mantissa);
    field("st exponent", x.fpu.reg[i].exponent, y.fpu.reg[i].exponent);
  }
  for (unsigned i = 0; i < 16; ++i) field("xmm", x.xmm[i].q[0], y.xmm[i].q[0]);
  field("halted", x.halted, y.halted), field("shadow", x.interrupt_shadow, y.interrupt_shadow);
  field("trap hold", static_cast<uint64_t>(x.trap_hold), static_cast<uint64_t>(y.trap_hold));
  field("cpl", x.cpl, y.cpl);
  return out;
}

FinalState state_of(Machine& machine) {
  ByteWriter without;
  put_state(registers_of(machine), without);
  return {.registers = digest_of(without.bytes()).hex(),
          .devices = machine.device_digest().hex(),
          .memory = machine.memory_digest().hex()};
}

Recording record(Machine& machine, const Pace& pace) {
  WorldEvents events([&machine] { machine.kick(); });
  log::MemorySink sink;
  replay::Recorder recorder(sink);
  Recording result;
  {
    replay::LiveSource source(machine, events,
                              {.anchor_interval = pace.anchor_interval,
                               .time_limit = pace.time_limit,
                               .epoch_length = pace.epoch_length,
                               .epochs_per_memory_check = pace.epochs_per_memory_check});
    replay::Lander lander;
    result.end = run_loop(machine, source, lander, &recorder);
  }
  recorder.finish(machine, result.end);
  US_CHECK(sink.flush().ok());
  result.log = sink.bytes();
  result.state = state_of(machine);
  result.digest = recorder.final_digest();
  result.records = recorder.records();
  result.epochs = recorder.epochs();
  return result;
}

Replayed replay_on(Machine& machine, const Bytes& log, bool verify, uint64_t margin) {
  log::MemoryStream stream(log);
  auto opening = replay::read_opening(stream);
  US_CHECK(opening.ok());
  replay::LogSource source(stream, std::move(opening->first));
  replay::Verifier verifier;
  replay::Lander lander({.margin = margin, .minimum_period = kMinimumPeriod});
  Replayed result;
  result.end = run_loop(machine, source, lander, verify ? &verifier : nullptr);
  result.landings = lander.counters();
  return result;
}

}  // namespace us::hv::kvm::test
