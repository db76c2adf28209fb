#include "tests/support/kvm_guest/trial.h"

#include <fmt/format.h>

#include "hv/kvm/test_guest.h"

namespace us::hv::kvm::test {
namespace {

// A machine of one kind, with what it said.
struct Subject {
  TextWorld world;
  std::unique_ptr<Machine> machine;  // goes first
};

Status make(Subject& subject, const VcpuFactory& factory, uint64_t rounds) {
  auto made =
      Machine::create({.memory_bytes = kGuestMemoryBytes, .platform = {}}, subject.world, factory);
  if (!made.ok()) return made.error();
  subject.machine = std::move(made).value();
  load_payload(*subject.machine, rounds);
  return Done{};
}

std::string unless_powered_off(const char* what, const replay::EndOfInputs& end) {
  if (end.kind == replay::EndKind::kGuestPoweredOff) return "";
  return fmt::format("{} did not come to the guest's end: {}", what, end.detail);
}

std::string compare(Subject& replayed, const Recording& recording, Subject& recorded) {
  const FinalState state = state_of(*replayed.machine);
  std::string out;
  if (state.registers != recording.state.registers)
    out += "registers differ: " + differences(*replayed.machine, *recorded.machine);
  if (state.devices != recording.state.devices) out += "devices differ; ";
  if (state.memory != recording.state.memory) out += "memory differs; ";
  if (replayed.world.text != recorded.world.text) out += "consoles differ; ";
  return out;
}

class Trials {
 public:
  Trials(const TrialHost& host, const std::function<void(const Trial&)>& done)
      : host_(host), done_(done) {}

  // Records with one kind of vCPU and replays with the others in turn.
  struct Replayer {
    const char* name;
    const VcpuFactory& factory;
    bool same_backend;  // digests of epochs are comparable
  };
  void round(const char* name, const VcpuFactory& factory, bool kicked,
             std::initializer_list<Replayer> replayers);
  bool all_passed() const { return all_passed_; }

 private:
  void end(Trial trial) {
    if (!trial.failure.empty()) all_passed_ = false;
    done_(trial);
  }
  Trial replay(const std::string& name, const Replayer& replayer, const Recording& recording,
               Subject& recorded);

  const TrialHost& host_;
  const std::function<void(const Trial&)>& done_;
  bool all_passed_ = true;
};

void Trials::round(const char* name, const VcpuFactory& factory, bool kicked,
                   std::initializer_list<Replayer> replayers) {
  Trial trial{.name = name, .failure = "", .figures = ""};
  Subject recorded;
  if (Status s = make(recorded, factory, host_.rounds); !s.ok()) {
    trial.failure = s.error().text();
    return end(trial);
  }
  Recording recording;
  {
    std::optional<Storm> storm;
    if (kicked) storm.emplace(recorded.machine->vcpu(), host_.pace.between_kicks);
    recording = record(*recorded.machine, host_.pace);
  }
  trial.failure = unless_powered_off("the recording", recording.end);
  if (trial.failure.empty() && (recording.records == 0 || recording.epochs == 0))
    trial.failure = "nothing was recorded";
  trial.figures = fmt::format("{} inputs, {} epochs, {} branches", recording.records,
                              recording.epochs, recorded.machine->vcpu().branches().value);
  const bool go_on = trial.failure.empty();
  end(trial);
  if (!go_on) return;
  for (const Replayer& replayer : replayers) end(replay(name, replayer, recording, recorded));
}

Trial Trials::replay(const std::string& name, const Replayer& replayer, const Recording& recording,
                     Subject& recorded) {
  Trial trial{
      .name = fmt::format("{}, replayed {}", name, replayer.name), .failure = "", .figures = ""};
  Subject subject;
  if (Status s = make(subject, replayer.factory, host_.rounds); !s.ok()) {
    trial.failure = s.error().text();
    return trial;
  }
  const Replayed replayed =
      replay_on(*subject.machine, recording.log, replayer.same_backend, host_.margin);
  trial.figures = fmt::format("{} landings, {} past their place", replayed.landings.landings,
                              replayed.landings.overshoots);
  trial.failure = unless_powered_off("the replay", replayed.end);
  if (trial.failure.empty()) trial.failure = compare(subject, recording, recorded);
  if (replayed.landings.landings == 0) trial.failure += "nothing was landed; ";
  if (replayed.landings.overshoots != 0) trial.failure += "a place was passed; ";
  if (replayer.same_backend && subject.machine->whole_digest().hex() != recording.digest.hex())
    trial.failure += "digests differ; ";
  return trial;
}

}  // namespace

bool try_guest(const TrialHost& host, const std::function<void(const Trial&)>& done) {
  Trials trials(host, done);
  const VcpuFactory soft;
  const Trials::Replayer by_steps{"by steps", host.stepped, true};
  const Trials::Replayer in_software{"by the software processor", soft, false};
  trials.round("recorded by steps", host.stepped, false, {by_steps, in_software});
  trials.round("recorded by steps amid kicks", host.stepped, true, {by_steps, in_software});
  if (host.counted) {
    const Trials::Replayer by_counter{"by the counter", host.counted, true};
    trials.round("recorded by the counter amid kicks", host.counted, true,
                 {by_counter, by_steps, in_software});
    trials.round("recorded by steps for the counter", host.stepped, false, {by_counter});
  }
  return trials.all_passed();
}

}  // namespace us::hv::kvm::test
