#include "tools/ft_standby.h"

#include <filesystem>

#include "hv/snapshot.h"
#include "tools/kept_log.h"

namespace us::tools {
namespace {

using replay::InboundLog;

UserError bad_session(std::string seen) {
  return {.id = "FT-010",
          .exit_code = ExitCode::kIncompatible,
          .what = "the primary's session cannot be used",
          .seen = std::move(seen),
          .needed = "a description of the VM, its state, then its log",
          .mend = "run the same build of understudy on both hosts"};
}

// Sections up to the first of the state, which stays in `next`.
Result<replay::Sections> read_description(log::LogStream& log, std::optional<log::Record>& next) {
  constexpr size_t kSectionsMost = 16;
  constexpr uint64_t kBytesMost = 1 << 20;
  replay::Sections sections;
  uint64_t bytes = 0;
  for (;;) {
    auto record = log.next();
    if (!record.ok()) return record.error();
    if (!record->has_value()) return bad_session("it ended before the VM's state came");
    auto* section = std::get_if<log::Section>(&(*record)->body);
    if (section == nullptr) return bad_session("an input before the VM's state");
    if (section->name == "snapshot") {
      next = std::move(**record);
      return sections;
    }
    bytes += section->data.size();
    if (sections.size() >= kSectionsMost || bytes > kBytesMost)
      return bad_session("a description that is too long");
    sections[section->name] = std::move(section->data);
  }
}

// Where this host's own description differs: its paths and interfaces count.
Result<VmConfig> config_here(const replay::Sections& sections, const std::string& vm_here) {
  const auto found = sections.find("vm");
  if (found == sections.end()) return bad_session("it does not describe the VM");
  auto there = parse_run_config(std::string(found->second.begin(), found->second.end()),
                                "the primary's description");
  if (!there.ok() || vm_here.empty()) return there;
  auto here = read_vm_config(vm_here);
  if (!here.ok()) return here;
  if (here->disks.size() != there->disks.size() || here->nets.size() != there->nets.size())
    return bad_session(fmt::format("{} disks and {} networks there, {} and {} in {}",
                                   there->disks.size(), there->nets.size(), here->disks.size(),
                                   here->nets.size(), vm_here));
  // Digests of paths are compared where the primary makes them.
  here->ipt_check = there->ipt_check;
  // Both sides run alike.
  here->backend.name = there->backend.name;
  here->backend.cooperative = there->backend.cooperative;
  return here;
}

// The session's backend, for its machine and for this side once it is live. What was found fit when
// the primary called is what is run.
Status take_backend(FtBase& base, const replay::StandbySession& session, BackendChoice& backend) {
  if (backend.contract() != session.contract)
    return bad_session(fmt::format("backend contract \"{}\" announced, \"{}\" described",
                                   session.contract, backend.contract()));
  backend.by_steps = base.backend.by_steps;
  backend.cpu = base.backend.cpu;
  backend.checked = true;
  base.pair.contract = session.contract;
  return use_backend(backend);
}

// Tells the shadow gate which outputs belong to which record, and compares digests.
class ShadowObserver final : public replay::InputObserver {
 public:
  ShadowObserver(InboundLog& log, FtBase& base, replay::Witness* witness)
      : log_(log), base_(base), verifier_(witness) {}
  bool before_apply(hv::Machine& machine, const replay::StampedInput& input,
                    replay::EndOfInputs& why) override {
    base_.gate.close_batch(log_.position());
    if (base_.meddle) base_.meddle(machine);
    return verifier_.before_apply(machine, input, why);
  }
  bool at_epoch(hv::Machine& machine, const replay::EpochCheck& check,
                replay::EndOfInputs& why) override {
    base_.gate.close_batch(log_.position());
    return verifier_.at_epoch(machine, check, why);
  }
  const replay::Verifier& verifier() const { return verifier_; }

 private:
  InboundLog& log_;
  FtBase& base_;
  replay::Verifier verifier_;
};

// Where the operator wants it, what is received goes to disk as well. Null: not.
std::unique_ptr<KeptLog> keep_log(FtBase& base, const replay::StandbySession& session) {
  if (base.keep_log.empty()) return nullptr;
  const auto name = [&](unsigned n) {
    return fmt::format("{}/session-{}-{}", base.keep_log, session.generation, n);
  };
  unsigned n = 1;
  while (std::filesystem::exists(name(n))) ++n;
  auto kept = KeptLog::create(name(n), *session.log);
  if (kept.ok()) return std::move(kept).value();
  base.event("log-not-kept", kept.error().what + ": " + kept.error().seen);
  return nullptr;
}

bool diverged(replay::EndKind kind) {
  return kind == replay::EndKind::kDiverged || kind == replay::EndKind::kOvershoot ||
         kind == replay::EndKind::kMiscount;
}

// The primary's last words hold the digest of its whole machine.
void compare_end(Shadow& shadow, const replay::LogSource& source) {
  if (!source.end_record() || shadow.end.kind == replay::EndKind::kDiverged) return;
  shadow.final_digest = shadow.machine->whole_digest();
  const Digest there = std::get<log::End>(source.end_record()->body).final_digest;
  if (there == shadow.final_digest) return;
  shadow.end = {replay::EndKind::kDiverged, fmt::format("the final digest is {} here, {} there",
                                                        shadow.final_digest.hex(), there.hex())};
}

}  // namespace

Shadow follow_session(FtBase& base, replay::StandbyDriver& driver,
                      const replay::StandbySession& session, const std::string& vm_here) {
  Shadow shadow;
  base.gate.connect(nullptr);
  base.gate.set_mode(replay::OutputGate::Mode::kShadow);
  std::optional<log::Record> next;
  const auto kept = keep_log(base, session);
  log::LogStream& log = kept != nullptr ? static_cast<log::LogStream&>(*kept) : *session.log;
  auto sections = read_description(log, next);
  if (!sections.ok()) {
    shadow.error = sections.error();
    return shadow;
  }
  auto config = config_here(*sections, vm_here);
  if (!config.ok()) {
    shadow.error = config.error();
    return shadow;
  }
  shadow.config = std::move(config).value();
  if (const Status s = take_backend(base, session, shadow.config.backend); !s.ok()) {
    shadow.error = s.error();
    return shadow;
  }
  StateReader state(log, next);
  auto machine =
      hv::read_snapshot([&](std::span<uint8_t> out) { return state.read(out); }, base.gate);
  if (!machine.ok()) {
    shadow.error = machine.error();
    return shadow;
  }
  shadow.machine = std::move(machine).value();
  if (config_digest(shadow.machine->config()) != session.config_digest) {
    shadow.error = bad_session("the machine that came is not the one announced");
    return shadow;
  }
  std::unique_ptr<replay::Witness> tracing;
  if (const replay::WitnessOptions options = witness(base, shadow.config); options.wanted()) {
    auto started = replay::Witness::start(*shadow.machine, options);
    if (started.ok()) {
      tracing = std::move(started).value();
    } else {
      base.event("not-traced", replay::state_digests_only(started.error()));
    }
  }
  driver.side().ready(session.log);

  replay::LogSource source(log, std::move(next));
  ShadowObserver observer(*session.log, base, tracing.get());
  replay::Lander lander(replay::landing_profile(
      base.profile.value_or(uncalibrated_profile(shadow.config.backend)), *shadow.machine));
  shadow.end = replay::run_loop(*shadow.machine, source, lander, &observer);
  shadow.verified_epochs = observer.verifier().verified_epochs();
  shadow.traced = observer.verifier().traced();
  shadow.landings = lander.counters();
  compare_end(shadow, source);
  if (kept != nullptr && diverged(shadow.end.kind)) {
    const Status done = kept->keep(shadow.end.detail);
    base.event("log-kept", done.ok()
                               ? "look into it with `understudy diverge " + kept->folder() + "`"
                               : done.error().what + ": " + done.error().seen);
  }
  return shadow;
}

Bytes announcement(const std::array<uint8_t, 6>& mac) {
  Bytes frame(60, 0);  // Ethernet's shortest, without its checksum
  std::fill_n(frame.begin(), 6, uint8_t{0xff});
  std::copy(mac.begin(), mac.end(), frame.begin() + 6);
  // EtherType RARP; hardware Ethernet, protocol IPv4, lengths 6 and 4, "request reverse" (3).
  const std::array<uint8_t, 10> head{0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3};
  std::copy(head.begin(), head.end(), frame.begin() + 12);
  std::copy(mac.begin(), mac.end(), frame.begin() + 22);  // sender
  std::copy(mac.begin(), mac.end(), frame.begin() + 32);  // target
  return frame;
}

void announce(hv::World& world, const hv::MachineConfig& config) {
  for (size_t i = 0; i < config.platform.nets.size(); ++i)
    world.frame(static_cast<uint8_t>(i), announcement(config.platform.nets[i].mac));
}

}  // namespace us::tools
