#include <chrono>
#include <cstdio>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/cpu/soft_vcpu.h"
#include "logchannel/log_reader.h"
#include "replay-engine/landing.h"
#include "replay-engine/log_source.h"
#include "tests/property/pt/soak.h"
#include "tests/support/pt_flow.h"
#include "tools/recording.h"

namespace us::test {
namespace {

class Mapped {
 public:
  explicit Mapped(const std::string& path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info {};
    US_CHECK(fd >= 0 && fstat(fd, &info) == 0, "cannot open {}", path);
    size_ = static_cast<size_t>(info.st_size);
    at_ = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    US_CHECK(at_ != MAP_FAILED, "cannot map {}", path);
    close(fd);
  }
  ~Mapped() { munmap(at_, size_); }
  ByteSpan bytes() const { return {static_cast<const uint8_t*>(at_), size_}; }

 private:
  void* at_ = nullptr;
  size_t size_ = 0;
};

class NoOutput final : public hv::OutputSink {
  void frame(uint8_t, Bytes) override {}
  void disk(hv::DiskRequest) override {}
  void console(uint8_t, ByteSpan) override {}
};

// A repeated string instruction is executed in pieces; only after the last does RIP go on.
bool piece_of_rep(const hv::Cpu& cpu, uint64_t linear) {
  if (hv::linear_ip(cpu, cpu.rip) != linear) return false;
  uint64_t phys;
  uint8_t prefix = 0;
  return hv::translate_quietly(cpu, linear, phys) &&
         cpu.memory.read(GuestPhys(phys), {&prefix, 1}) && (prefix & 0xfe) == 0xf2;
}

// Steps the machine to `point`, each instruction held against libipt's. False: they differ.
bool step_to(hv::Machine& machine, PtFlow& flow, const hv::ExecutionPoint& point,
             uint64_t branches_max) {
  auto& vcpu = static_cast<hv::SoftVcpu&>(machine.vcpu());
  while (!replay::at_target(machine, {point})) {
    const uint64_t linear = hv::linear_ip(vcpu.cpu(), vcpu.cpu().rip);
    const uint64_t before = vcpu.cpu().instructions;
    // An interrupt that comes first is a step of its own.
    machine.step();
    if (vcpu.cpu().branches >= branches_max) return true;
    if (vcpu.cpu().instructions == before || piece_of_rep(vcpu.cpu(), linear)) continue;
    if (!flow.executed(linear)) return false;
    if (vcpu.cpu().instructions > point.instructions.value) {
      std::printf("the replay passed its point at instruction %lu\n", vcpu.cpu().instructions);
      return false;
    }
  }
  return true;
}

}  // namespace

int soak_flow(const std::string& recording, const std::string& trace_path, uint64_t branches_max) {
  auto reader = log::LogReader::open(recording);
  US_CHECK(reader.ok(), "cannot open {}", recording);
  auto opening = replay::read_opening(**reader);
  US_CHECK(opening.ok(), "{}", opening.error().text());
  auto recorded = tools::read_description(recording, opening->sections);
  US_CHECK(recorded.ok(), "{}", recorded.error().text());
  NoOutput nobody;
  auto made = hv::Machine::create(recorded->machine, nobody);
  US_CHECK(made.ok());
  hv::Machine& machine = **made;
  US_CHECK(machine.boot(recorded->boot).ok());
  const Mapped trace(trace_path);
  PtFlow flow(trace.bytes(), static_cast<hv::SoftVcpu&>(machine.vcpu()).cpu());
  replay::LogSource source(**reader, std::move(opening->first));

  const auto started = std::chrono::steady_clock::now();
  bool same = true, whole = false;
  while (same && machine.point().branches.value < branches_max) {
    const replay::Next next = source.next(machine);
    whole = std::holds_alternative<replay::EndOfInputs>(next);
    if (whole) break;
    const auto* check = std::get_if<replay::EpochCheck>(&next);
    const auto* input = std::get_if<replay::StampedInput>(&next);
    same = step_to(machine, flow, check ? check->point : input->point, branches_max);
    if (same && input != nullptr && machine.point().branches.value < branches_max)
      machine.apply(input->input);
  }
  const bool ended = !whole || flow.ended();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
  std::printf("%s: %lu branches, %lu instructions and %lu events of libipt's in %.0f s%s\n",
              same && ended ? "equal" : "DIFFERS", machine.point().branches.value,
              flow.instructions(), flow.events(), took.count(),
              whole ? ", to the end of both" : "");
  if (!flow.error().empty() && !(same && ended)) std::printf("%s\n", flow.error().c_str());
  return same && ended ? 0 : 1;
}

}  // namespace us::test
