#include "tests/property/landing/pair.h"

#include "hv/boot/load_context.h"
#include "hv/boot_vcpu.h"

extern "C" const uint8_t landing_payload_begin[], landing_payload_end[];

namespace us::replay::soak {
namespace {

constexpr uint64_t kDigestsEvery = 64;  // landings
constexpr uint64_t kReadyAfter = 1000;  // instructions; the payload's interrupt table stands

std::unique_ptr<hv::Machine> machine_of(unsigned kind, NoWorld& world) {
  constexpr uint64_t kEntry = 0x10'0000;
  auto made = hv::Machine::create({.memory_bytes = 8u << 20, .platform = {}}, world);
  US_CHECK(made.ok());
  std::unique_ptr<hv::Machine> machine = std::move(made).value();
  US_CHECK(
      machine->memory().write(GuestPhys(kEntry), {landing_payload_begin, landing_payload_end}));
  hv::BootState state = hv::long_mode_state(machine->memory(), kEntry);
  state.gpr[12] = kind;
  hv::enter_boot_state(machine->vcpu(), state);
  return machine;
}

std::string text_of(const hv::ExecutionPoint& p) {
  return fmt::format("branches {} rip {:#x} rcx {:#x} instructions {}", p.branches.value, p.rip,
                     p.rcx, p.instructions.value);
}

}  // namespace

Pair::Pair(unsigned kind, const pmu::HostProfile& profile, bool counted, uint64_t seed)
    : truth_(machine_of(kind, world_)),
      follower_(machine_of(kind, world_)),
      lander_(landing_profile(profile, *follower_)),
      counted_(counted),
      reach_(3 * profile.margin + 300),
      random_(seed) {}

// Goes on by branches, by single steps, or both, as a live source is stopped by alarms and kicks.
void Pair::wander() {
  hv::MachineStop stop = hv::MachineStop::kLimit;
  if (!random_.one_in(6)) {
    const uint64_t far = random_.one_in(4) ? 4 : reach_;
    const Branches alarm = truth_->point().branches + 1 + random_.below(far);
    do {
      stop = truth_->run({.alarm = alarm});
    } while (stop == hv::MachineStop::kTimersChanged);
  }
  const uint64_t steps = random_.below(random_.one_in(8) ? 400 : 40);
  for (uint64_t i = 0; i < steps && stop != hv::MachineStop::kIdle; ++i) stop = truth_->step();
  US_CHECK(stop != hv::MachineStop::kShutdown, "the payload broke");
}

std::string Pair::land_once() {
  const hv::ExecutionPoint before = truth_->point();
  do {
    wander();
    // A guest that sleeps goes no further before it is given time.
    if (truth_->point() == before && truth_->vcpu().halted()) apply_something();
  } while (truth_->point() == before);
  const hv::ExecutionPoint point = truth_->point();
  LandingTarget target{point};
  if (!counted_) {
    target.point.instructions = {};
    target.tie = tie_of(*truth_);
  }
  const LandingResult result = lander_.land(*follower_, target);
  if (result.verdict == LandingVerdict::kOvershoot) {
    if (std::string wrong = overshot(result); !wrong.empty()) return wrong;
  } else if (!result.ok()) {
    return fmt::format("verdict {}, truth: {}, reached: {}", static_cast<int>(result.verdict),
                       text_of(point), text_of(follower_->point()));
  }
  if (follower_->point() != truth_->point())
    return fmt::format("landed at {}, truth: {}", text_of(follower_->point()),
                       text_of(truth_->point()));
  if (++done_ % kDigestsEvery == 0 && (truth_->register_digest() != follower_->register_digest() ||
                                       truth_->device_digest() != follower_->device_digest()))
    return "right point, but registers or devices differ at " + text_of(point);
  apply_something();
  return {};
}

// It must say why and how to mend it, must be true, and then the truth can follow: no input was
// missed.
std::string Pair::overshot(const LandingResult& result) {
  const EndOfInputs end = result.end();
  if (!end.error || end.error->text().find("understudy calibrate") == std::string::npos)
    return "an overshoot without the way to mend it: " + end.detail;
  const hv::ExecutionPoint there = follower_->point();
  if (there.instructions <= truth_->point().instructions)
    return "an overshoot that is none: " + end.detail;
  Lander exact;
  const LandingResult caught_up = exact.land(*truth_, there);
  return caught_up.ok() ? "" : "the truth cannot follow: " + caught_up.end().detail;
}

// Mostly time, often enough of it for the timer; sometimes an NMI or nothing at all. A guest that
// sleeps gets time enough to wake.
void Pair::apply_something() {
  const bool sleeps = truth_->vcpu().halted();
  const uint64_t what = sleeps ? 0 : random_.below(16);
  if (what == 15) return;
  if (what == 14 && truth_->point().instructions.value > kReadyAfter) {
    for (const auto& machine : {truth_.get(), follower_.get()})
      machine->apply(hv::CommandInput{hv::Command::kNmi});
    return;
  }
  GuestTsc tsc = truth_->now() + random_.below(120'000);
  if (const auto deadline = truth_->next_deadline(); sleeps && deadline)
    tsc = std::max(tsc, *deadline);
  const uint64_t rate = random_.below(uint64_t{8} << 32);
  const GuestTsc ceiling = tsc + random_.below(50'000);
  for (const auto& machine : {truth_.get(), follower_.get()})
    machine->apply(hv::AnchorInput{{.branches = machine->point().branches,
                                    .tsc = tsc,
                                    .ticks_per_branch_q32 = rate,
                                    .tsc_ceiling = ceiling}});
}

}  // namespace us::replay::soak
