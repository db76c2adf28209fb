#include "tools/backend.h"

#include "hv/kvm/kvm_vcpu.h"
#include "hv/machine.h"
#include "pmu/perf_counter.h"
#include "tools/host.h"

namespace us::tools {
namespace {

// Enough to see a counter that is wrong, in a moment.
constexpr uint64_t kCheckBranches = 100'000;

constexpr char kSoftContract[] = "soft-1";
constexpr char kKvmContract[] = "kvm-1";
constexpr char kCooperativeContract[] = "kvm-cooperative-1";

// Of hostcheck: what the choice needs this host to do.
struct Mode {
  const char* name;
  bool hv::kvm::HostModes::*there;
};
Mode mode_of(const BackendChoice& choice) {
  using hv::kvm::HostModes;
  if (choice.by_steps) return {"record_kvm_steps", &HostModes::record_kvm_steps};
  if (choice.cooperative) return {"record_kvm_stock", &HostModes::record_kvm_stock};
  return {"record_kvm_patched", &HostModes::record_kvm_patched};
}

// The rows of hostcheck in the way, each with what was seen; empty: none.
std::string obstacles(const BackendChoice& choice) {
  const HostSeams seams = open_host();
  const Mode mode = mode_of(choice);
  // Most hosts lack something that shows without running a guest.
  const std::string plain = hv::kvm::check_host(seams.host(), {.quick = true}).obstacles(mode.name);
  if (!plain.empty()) return plain;
  const hv::kvm::HostReport report =
      hv::kvm::check_host(seams.host(), {.loop_branches = kCheckBranches});
  if (report.modes.*mode.there) return "";
  const std::string rows = report.obstacles(mode.name);
  return rows.empty() ? "the check of the host came to no end" : rows;
}

UserError unfit(const BackendChoice& choice, const std::string& rows) {
  return {.id = "KVM-009",
          .exit_code = ExitCode::kHostCannot,
          .what = fmt::format("this host cannot do {}", mode_of(choice).name),
          .seen = rows,
          .needed = "every row that `understudy hostcheck` has for it",
          .mend = "mend those rows as `understudy hostcheck` says, or use `--backend soft`"};
}

hv::VcpuFactory kvm_factory(const BackendChoice& choice) {
  return [choice](hv::GuestMemory& memory, hv::Bus& bus) -> Result<std::unique_ptr<hv::Vcpu>> {
    const HostSeams seams = open_host();
    hv::kvm::KvmOptions options{.cooperative = choice.cooperative, .cpu = choice.cpu};
    options.trace = seams.trace.get();
    options.keeps = std::make_shared<HostSeams>(seams);
    if (!choice.by_steps)
      options.counter = [seams](int signal) { return hv::kvm::open_counter(seams.host(), signal); };
    return hv::kvm::KvmVcpu::create(*seams.kvm, memory, bus, std::move(options));
  };
}

}  // namespace

std::string BackendChoice::contract() const {
  if (name != "kvm") return kSoftContract;
  return cooperative ? kCooperativeContract : kKvmContract;
}

pmu::LandsBy BackendChoice::lands_by() const {
  if (name != "kvm") return pmu::LandsBy::kModel;
  return by_steps ? pmu::LandsBy::kSteps : pmu::LandsBy::kCounter;
}

void add_backend_options(CLI::App& app, BackendChoice& choice) {
  app.add_flag("--kvm-steps", choice.by_steps,
               "kvm backend: no branch counter, every instruction is stepped (far slower)");
  app.add_option("--cpu", choice.cpu, "kvm backend: the processor that the vCPU's thread runs on");
}

Status use_backend(BackendChoice& choice) {
  const bool wanted = choice.name == "kvm";
  std::string rows;
  if (choice.name != "soft" && !choice.checked) rows = obstacles(choice);
  if (wanted && !rows.empty()) return unfit(choice, rows);
  choice.name = choice.name == "soft" || !rows.empty() ? "soft" : "kvm";
  hv::set_default_vcpu(choice.name == "kvm" ? kvm_factory(choice) : hv::VcpuFactory());
  return Done{};
}

Contracts::Contracts(const BackendChoice& here, const std::optional<pmu::HostProfile>& profile) {
  refusals_[kSoftContract] = "";
  for (const bool cooperative : {false, true}) {
    BackendChoice there = here;
    there.name = "kvm";
    there.cooperative = cooperative;
    std::string& refusal = refusals_[there.contract()];
    const std::string rows = obstacles(there);
    if (!rows.empty()) {
      refusal = fmt::format("this host cannot do {}: {}", mode_of(there).name, rows);
    } else if (profile) {
      const auto other = pmu::refuse_other_counter(*profile, there.lands_by(), "of the standby");
      if (other) refusal = fmt::format("{} [{}]: {}", other->what, other->id, other->seen);
    }
  }
}

std::string Contracts::refuse(const std::string& contract) const {
  if (const auto at = refusals_.find(contract); at != refusals_.end()) return at->second;
  return fmt::format("backend contract \"{}\", which this build does not know", contract);
}

pmu::HostProfile uncalibrated_profile(const BackendChoice& choice) {
  if (choice.lands_by() == pmu::LandsBy::kCounter) {
    const HostSeams seams = open_host();
    if (const auto row = pmu::usable_event(seams.system->cpu()); row.ok())
      return {.event = std::string((*row)->name), .margin = (*row)->skid, .minimum_period = 32};
  }
  return {.event = "model", .exact = true};
}

}  // namespace us::tools
