#include "hv/kvm/trace_figures.h"

#include <chrono>

#include "hv/kvm/test_guest.h"
#include "ipt/capture/trace_pmu.h"
#include "ipt/scanner.h"

namespace us::hv::kvm {
namespace {

constexpr uint64_t kTurns = 0xffff'ffff;
constexpr uint64_t kBranchesACut = 400;

// MOV ECX; start: LEA RAX, [RIP + 2]; JMP RAX, to what follows; DEC ECX; JNZ start
Bytes jumping_loop() {
  Bytes code;
  put_load_counter(code, kTurns);
  const size_t start = code.size();
  put(code, {0x48, 0x8d, 0x05, 0x02, 0, 0, 0, 0xff, 0xe0});
  put_loop_end(code, start);
  put(code, {0xf4});
  return code;
}

// Looks at the order of packets; wants every one of them by itself.
class OrderSink {
 public:
  static constexpr bool kWantsPads = false;
  struct Fast {
    void tnt(uint64_t, unsigned) {}
    void tip(uint64_t) {}
    void pads(unsigned) {}
    ptrdiff_t room() const { return 1; }
  };
  bool plain() const { return false; }
  void pads(uint64_t) {}
  Fast begin_fast() { return {}; }
  void end_fast(const Fast&) {}
  void damage(uint64_t) { after_target_ = false; }
  void packet(const ipt::Packet& p) {
    using ipt::PacketKind;
    if (p.kind == PacketKind::kPad) return;
    if (p.kind == PacketKind::kTip && after_target_) ++deferred;
    if (p.kind == PacketKind::kTnt64) ++long_tnts;
    branches += p.bits;
    after_target_ = p.kind == PacketKind::kTip;
  }
  uint64_t deferred = 0, long_tnts = 0, branches = 0;

 private:
  bool after_target_ = false;
};

class FiguresSink final : public ipt::TraceSink {
 public:
  bool accept(ByteSpan bytes) override {
    scanner.feed(bytes);
    return true;
  }
  void lost(uint32_t flags) override { loss |= flags; }
  OrderSink order;
  ipt::Scanner<OrderSink> scanner{order};
  uint32_t loss = 0;
};

}  // namespace

Result<TraceFigures> measure_trace(KvmHost& host, ipt::TraceHost& trace, const KvmOptions& options,
                                   uint64_t cuts) {
  if (const auto pmu = ipt::find_trace_pmu(trace); !pmu.ok()) return pmu.error();
  KvmOptions wanted = options;
  wanted.trace = &trace;
  TestGuest guest;
  if (Status s = make_test_guest(guest, host, wanted, jumping_loop()); !s.ok()) return s.error();
  KvmVcpu& vcpu = *guest.vcpu;
  FiguresSink sink;
  const auto setup = vcpu.start_trace({.sink = &sink});
  if (!setup.ok()) return setup.error();
  TraceFigures figures;
  std::chrono::duration<double, std::nano> cutting{0};
  while (figures.cuts < cuts) {
    const StopReason reason = vcpu.run({.alarm = vcpu.branches() + kBranchesACut});
    if (reason == StopReason::kFailed) return *vcpu.failure();
    if (reason != StopReason::kAlarm) return went_astray(vcpu, reason);
    const auto begun = std::chrono::steady_clock::now();
    vcpu.cut_trace();
    cutting += std::chrono::steady_clock::now() - begun;
    ++figures.cuts;
  }
  figures.bytes = vcpu.capture()->statistics().bytes;
  vcpu.stop_trace();
  figures.cut_ns = cuts == 0 ? 0 : cutting.count() / static_cast<double>(cuts);
  figures.branches = sink.order.branches;
  figures.deferred_tips = sink.order.deferred;
  figures.long_tnts = sink.order.long_tnts;
  if (sink.loss != 0) figures.loss = fmt::format("AUX flags {:#x}", sink.loss);
  return figures;
}

}  // namespace us::hv::kvm
