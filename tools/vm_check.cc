// `understudy vm check`: everything about a VM description that can be known without running it.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "hv/world/net.h"
#include "tools/talk.h"
#include "tools/verbs.h"
#include "tools/vm_config.h"
#include "tools/vm_options.h"

namespace us::tools {
namespace {

std::vector<UserError> findings(const Result<VmConfig>& config) {
  if (!config.ok()) return {config.error()};
  std::vector<UserError> found = check_vm_config(*config);
  for (const VmNet& net : config->nets)
    if (const auto spec = hv::parse_net_spec(net.backend); !spec.ok())
      found.push_back(spec.error());
  return found;
}

void print_json(const std::vector<UserError>& found) {
  auto errors = nlohmann::ordered_json::array();
  for (const UserError& e : found)
    errors.push_back(
        {{"id", e.id}, {"what", e.what}, {"seen", e.seen}, {"needed", e.needed}, {"mend", e.mend}});
  const nlohmann::ordered_json out{
      {"schema", "understudy.vm.check.v1"}, {"good", found.empty()}, {"errors", errors}};
  fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

int check(const VmOptions& options, bool json, const Globals& globals) {
  const auto config = options.resolve();
  const std::vector<UserError> found = findings(config);
  if (json) print_json(found);
  for (const UserError& e : found)
    if (!json) report(e);
  if (!found.empty()) return static_cast<int>(found.front().exit_code);
  if (!json && !globals.quiet)
    fmt::print("{}: good; {} MiB, {} disk(s), {} net(s)\n", config->name,
               config->memory_bytes >> 20, config->disks.size(), config->nets.size());
  return finish_output();
}

}  // namespace

void add_vm(CLI::App& app, const Globals& globals, int& exit_code) {
  struct Options {
    VmOptions vm;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* group = app.add_subcommand("vm", "VM descriptions");
  group->require_subcommand(1);
  CLI::App* verb = group->add_subcommand("check", "check a VM description and what it names");
  options->vm.add_to(*verb);
  verb->add_flag("--json", options->json, "one JSON document");
  verb->callback(
      [options, &globals, &exit_code] { exit_code = check(options->vm, options->json, globals); });
}

}  // namespace us::tools
