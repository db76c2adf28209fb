#include "tests/unit/cpu_trace/traced_guest.h"

#include "base/check.h"
#include "hv/cpu/trace.h"
#include "ipt/variation.h"

extern "C" const uint8_t trace_payload[], trace_payload_end[], trace_fault32[], trace_error32[],
    trace_plain32[], trace_fault64[], trace_error64[], trace_plain64[], trace_syscall[],
    trace_sysenter[];

namespace us::hv::test {
namespace {

constexpr uint64_t kLoadedAt = 0x10000;
constexpr uint64_t kIdt32 = 0x2000, kTss = 0x4000, kIdt64 = 0x6000, kPml4 = 0x20000;
constexpr uint8_t kInterruptVector = 0x20;

uint64_t at(const uint8_t* label) {
  return kLoadedAt + static_cast<uint64_t>(label - trace_payload);
}

}  // namespace

TracedGuest::TracedGuest()
    : memory(std::move(GuestMemory::create(16 << 20).value())), vcpu(*memory, bus) {
  US_CHECK(memory->write(GuestPhys(kLoadedAt), {trace_payload, trace_payload_end}));
  build_tables();
  Cpu& c = vcpu.cpu();
  for (Segment& s : c.seg) s = {.base = 0, .limit = 0xffff, .access = 0x93, .selector = 0};
  c.seg[kCs] = {.base = kLoadedAt, .limit = 0xffff, .access = 0x9b, .selector = 0x1000};
  c.idtr = {.base = 0, .limit = 0x3ff};
  c.rip = 0;
  c.msr.star = uint64_t{0x30} << 48 | uint64_t{0x20} << 32;
  c.msr.lstar = at(trace_syscall);
  c.msr.sysenter_cs = 0x20;
  c.msr.sysenter_eip = at(trace_sysenter);
  c.msr.sysenter_esp = 0x9800;
  vcpu.refresh();
}

void TracedGuest::poke64(uint64_t where, uint64_t value) {
  US_CHECK(memory->write(GuestPhys(where), {reinterpret_cast<const uint8_t*>(&value), 8}));
}

// Interrupt gates that a user may name.
void TracedGuest::gate32(unsigned vector, const uint8_t* handler) {
  const uint64_t offset = at(handler);
  poke64(kIdt32 + vector * 8,
         (offset & 0xffff) | 0x08 << 16 | uint64_t{0xee} << 40 | (offset & 0xffff'0000) << 32);
}
void TracedGuest::gate64(unsigned vector, const uint8_t* handler) {
  const uint64_t offset = at(handler);
  poke64(kIdt64 + vector * 16,
         (offset & 0xffff) | 0x20 << 16 | uint64_t{0xee} << 40 | (offset & 0xffff'0000) << 32);
  poke64(kIdt64 + vector * 16 + 8, offset >> 32);
}

void TracedGuest::build_tables() {
  // NMI, breakpoint, overflow, interrupt, INT n: go back. The others step over the instruction.
  for (const unsigned vector : {2u, 3u, 4u, 0x20u, 0x21u}) {
    gate32(vector, trace_plain32);
    gate64(vector, trace_plain64);
  }
  for (const unsigned vector : {0u, 6u}) {
    gate32(vector, trace_fault32);
    gate64(vector, trace_fault64);
  }
  for (const unsigned vector : {13u, 14u}) {
    gate32(vector, trace_error32);
    gate64(vector, trace_error64);
  }
  poke64(kTss + 4, 0x9000);  // RSP0
  poke64(kPml4, (kPml4 + 0x1000) | 7);
  poke64(kPml4 + 0x1000, (kPml4 + 0x2000) | 7);
  for (uint64_t i = 0; i < 512; ++i) poke64(kPml4 + 0x2000 + i * 8, i << 21 | 0x87);
}

uint64_t TracedGuest::linear() const { return linear_ip(vcpu.cpu(), vcpu.cpu().rip); }

void TracedGuest::inject(Injected what) {
  if (what == Injected::kInterrupt) vcpu.inject_interrupt(kInterruptVector);
  if (what == Injected::kNmi) vcpu.inject_nmi();
}

void TracedGuest::run(uint64_t seed, const std::function<void()>& cut) {
  ipt::VariationRandom random(seed);
  for (unsigned turn = 0; turn < 1'000'000; ++turn) {
    const Cpu& c = vcpu.cpu();
    const StopReason reason = vcpu.run({.alarm = Branches(c.branches + 1 + random.below(40))});
    if (reason == StopReason::kHalted) return;
    US_CHECK(reason == StopReason::kAlarm, "the payload shut down\n{}", vcpu.dump());
    Stop stop{.instructions = c.instructions};
    // Real mode's vector 2 leads nowhere.
    const bool nmi = random.one_in(9) && c.mode.is64();
    if (nmi) {
      stop.injected = Injected::kNmi;
    } else if (random.one_in(2) && vcpu.interruptible()) {
      stop.injected = Injected::kInterrupt;
    }
    stop.cut = cut && random.one_in(5);
    if (stop.cut) cut();
    inject(stop.injected);
    stops.push_back(stop);
  }
  US_CHECK(false, "the payload does not end");
}

void TracedGuest::follow(const std::vector<Stop>& at_stops) {
  if (next_stop_ < at_stops.size() && at_stops[next_stop_].instructions == instructions())
    inject(at_stops[next_stop_++].injected);
}

}  // namespace us::hv::test
