// `understudy hostcheck`: what this host can do, row by row.
#include <nlohmann/json.hpp>

#include "hv/kvm/host_check.h"
#include "tools/host.h"
#include "tools/talk.h"
#include "tools/verbs.h"

namespace us::tools {
namespace {

struct HostcheckOptions {
  bool json = false;
  bool quick = false;
  std::string need;
};

struct Mode {
  const char* name;
  bool hv::kvm::HostModes::*there;
};
constexpr Mode kModes[] = {{"record_soft", &hv::kvm::HostModes::record_soft},
                           {"record_kvm_steps", &hv::kvm::HostModes::record_kvm_steps},
                           {"record_kvm_stock", &hv::kvm::HostModes::record_kvm_stock},
                           {"record_kvm_patched", &hv::kvm::HostModes::record_kvm_patched},
                           {"ipt", &hv::kvm::HostModes::ipt}};

void print_json(const hv::kvm::HostReport& report) {
  auto rows = nlohmann::ordered_json::array();
  for (const hv::kvm::HostRow& row : report.rows)
    rows.push_back({{"id", row.id},
                    {"status", name_of(row.status)},
                    {"seen", row.seen},
                    {"needed", row.needed},
                    {"mend", row.mend}});
  nlohmann::ordered_json modes;
  for (const Mode& mode : kModes) modes[mode.name] = report.modes.*mode.there;
  const nlohmann::ordered_json out{
      {"schema", "understudy.hostcheck.v1"}, {"rows", rows}, {"modes", modes}};
  fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

void print_text(const hv::kvm::HostReport& report, const Globals& globals) {
  for (const hv::kvm::HostRow& row : report.rows) {
    const bool good = row.status == hv::kvm::RowStatus::kPass;
    if (good && globals.quiet) continue;
    fmt::print("{:<4}  {:<16} {}\n", name_of(row.status), row.id, row.seen);
    if (good && globals.verbose == 0) continue;
    fmt::print("      {:<16} needed: {}\n", "", row.needed);
    if (!row.mend.empty()) fmt::print("      {:<16} mend:   {}\n", "", row.mend);
  }
  for (const Mode& mode : kModes) {
    fmt::print("{:<20} {}", mode.name, report.modes.*mode.there ? "yes" : "no");
    const auto blocking = report.blocking(mode.name);
    for (size_t i = 0; i < blocking.size(); ++i)
      fmt::print("{}{}", i == 0 ? ": " : ", ", blocking[i]->id);
    fmt::print("\n");
  }
}

int hostcheck(const HostcheckOptions& options, const Globals& globals) {
  const HostSeams seams = open_host();
  const hv::kvm::HostReport report = hv::kvm::check_host(seams.host(), {.quick = options.quick});
  if (options.json) {
    print_json(report);
  } else {
    print_text(report, globals);
  }
  if (const int code = finish_output(); code != 0) return code;
  for (const Mode& mode : kModes)
    if (options.need == mode.name && !(report.modes.*mode.there))
      return static_cast<int>(ExitCode::kHostCannot);
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace

void add_hostcheck(CLI::App& app, const Globals& globals, int& exit_code) {
  auto options = std::make_shared<HostcheckOptions>();
  CLI::App* verb = app.add_subcommand("hostcheck", "what this host can do, row by row");
  verb->add_flag("--json", options->json, "one JSON document");
  verb->add_flag("--quick", options->quick, "run no guests; rows that need one are left open");
  std::vector<std::string> names;
  for (const Mode& mode : kModes) names.emplace_back(mode.name);
  verb->add_option("--need", options->need, "exit 3 unless this mode works here")
      ->check(CLI::IsMember(names));
  verb->callback([options, &globals, &exit_code] { exit_code = hostcheck(*options, globals); });
}

}  // namespace us::tools
