#include "tools/ft_options.h"

#include <unistd.h>

#include "base/digest.h"
#include "tools/host_profile.h"

namespace us::tools {
namespace {

UserError no_credentials() {
  return {.id = "FT-002",
          .what = "the channel between the two sides would not be protected",
          .seen = "no credentials",
          .needed = "--credentials psk:FILE or cert:DIR, or [ft] credentials in vm.toml",
          .mend =
              "head -c 32 /dev/urandom > vm.key; chmod 600 vm.key; copy it to both hosts. "
              "`--credentials plaintext` lets anybody on the network read and change the VM"};
}

UserError no_arbiter() {
  return {.id = "FT-003",
          .what = "nothing can decide which side may go live",
          .seen = "no arbiter, and no disk beside which one could be kept",
          .needed = "--arbiter file:PATH on storage both hosts share, or etcd:HOST:PORT",
          .mend = "name one, the same on both sides"};
}

// On the storage that holds the disk: a side that cannot reach it could not run the VM either.
std::string default_arbiter(const VmConfig& config) {
  for (const VmDisk& disk : config.disks)
    if (!disk.read_only) return "file:" + disk.path + ".arbiter";
  return "";
}

}  // namespace

std::string node_name(const std::string& role) {
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  return fmt::format("{}/{}", host, role);
}

void FtOptions::add_to(CLI::App& app) {
  app.add_option("--arbiter", arbiter_,
                 "who decides which side is live: file:PATH (shared storage) or etcd:HOST:PORT; "
                 "default: beside the first disk");
  app.add_option("--credentials", credentials_,
                 "psk:FILE or cert:DIR (cert.pem, key.pem, ca.pem); `plaintext` protects nothing");
  app.add_option("--node", node_, "this side's name towards the arbiter; default: HOST/ROLE");
  app.add_option("--timeout-ms", timeout_ms_,
                 "nothing heard for so long: the peer is lost (default 500)");
  app.add_option("--lag-target-ms", lag_target_ms_,
                 "vLockstep interval above which the primary is slowed");
  app.add_option("--metrics", metrics, "serve Prometheus metrics at unix:PATH or ADDR:PORT");
  app.add_option("--events", events_, "append events to this file, one JSON line each");
  app.add_option("--pmu-profile", pmu_profile_,
                 "this host's profile (TOML): a secondary lands with its margin");
  app.add_option("--stats", stats, "write statistics (JSON) to this file at the end");
  ipt_.add_to(app, {.trace_out = false});
}

Result<std::unique_ptr<FtBase>> FtOptions::open(const VmConfig& config,
                                                const std::string& role) const {
  const std::string credentials_text = credentials_.empty() ? config.ft.credentials : credentials_;
  if (credentials_text.empty()) return no_credentials();
  auto credentials = log::load_credentials(credentials_text);
  if (!credentials.ok()) return credentials.error();
  auto profile =
      load_fit_profile(pmu_profile_.empty() ? config.pmu_profile : pmu_profile_, config.backend);
  if (!profile.ok()) return profile.error();
  std::string where = arbiter_.empty() ? config.ft.arbiter : arbiter_;
  if (where.empty()) where = default_arbiter(config);
  if (where.empty()) return no_arbiter();

  replay::PairOptions pair;
  pair.vm_name = config.name;
  pair.node = node_.empty() ? node_name(role) : node_;
  pair.silence = std::chrono::milliseconds(timeout_ms_);
  pair.lag.target =
      std::chrono::milliseconds(lag_target_ms_ != 0 ? lag_target_ms_ : config.ft.lag_target_ms);
  auto arbiter = replay::open_arbiter(where, {.node = pair.node, .vm_name = config.name});
  if (!arbiter.ok()) return arbiter.error();

  auto witness = ipt_.witness(false);
  if (!witness.ok()) return witness.error();

  std::shared_ptr<EventLog> events;
  if (!events_.empty()) {
    auto opened = EventLog::open(events_, config.name);
    if (!opened.ok()) return opened.error();
    events = std::move(opened).value();
  }
  const auto event = [events](const std::string& name, const std::string& detail) {
    fmt::print(stderr, "understudy: {}{}{}\n", name, detail.empty() ? "" : ": ", detail);
    if (events) events->write(name, detail);
  };
  auto base = std::make_unique<FtBase>(std::move(pair), std::move(credentials).value(),
                                       std::move(arbiter).value(), event);
  base->witness = std::move(witness).value();
  base->ipt_check = ipt_.chosen();
  base->profile = std::move(profile).value();
  return base;
}

}  // namespace us::tools
