// `understudy failover`, `stop`, `enable`, `disable`: what an operator asks of a VM that runs on
// this host. The process that runs it does the work; these only ask.
#include <cstdio>

#include "tools/control/control.h"
#include "tools/talk.h"
#include "tools/verbs.h"

namespace us::tools {
namespace {

struct Options {
  std::string name, role, secondary;
  bool json = false;
};

int ask(const Globals& globals, const std::string& verb, const Options& options) {
  nlohmann::json request{{"verb", verb}};
  if (!options.secondary.empty()) request["secondary"] = options.secondary;
  auto reply = control_request(options.name, options.role, request);
  if (!reply.ok()) return report(reply.error());
  if (options.json) {
    if (!reply->is_object()) reply = nlohmann::json{{"reply", *reply}};
    if (!reply->contains("schema")) (*reply)["schema"] = "understudy-control-1";
    fmt::print("{}\n", reply->dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  } else if (!globals.quiet) {
    const auto said = reply->is_object() ? reply->find("message") : reply->end();
    const bool has_text = reply->is_object() && said != reply->end() && said->is_string();
    fmt::print(stderr, "understudy: {}: {}\n", options.name,
               has_text ? said->get<std::string>() : verb + ": done");
  }
  return finish_output();
}

CLI::App* add(CLI::App& app, const Globals& globals, int& exit_code, const std::string& verb,
              const char* help, const std::shared_ptr<Options>& options) {
  CLI::App* sub = app.add_subcommand(verb, help);
  sub->add_option("name", options->name, "the VM's name")->required();
  sub->add_flag("--json", options->json, "one JSON document");
  sub->add_option("--role", options->role, "which side is asked, where both run on this host")
      ->check(CLI::IsMember({"primary", "secondary"}));
  sub->callback(
      [options, verb, &globals, &exit_code] { exit_code = ask(globals, verb, *options); });
  return sub;
}

}  // namespace

void add_operator(CLI::App& app, const Globals& globals, int& exit_code) {
  const auto fresh = [] { return std::make_shared<Options>(); };
  add(app, globals, exit_code, "failover", "let the secondary take over now", fresh());
  add(app, globals, exit_code, "stop", "end the VM on both sides; nobody takes over", fresh());
  add(app, globals, exit_code, "disable", "run on without a secondary", fresh());
  const auto options = fresh();
  CLI::App* enable =
      add(app, globals, exit_code, "enable", "give the VM a secondary while it runs", options);
  enable->add_option("--secondary", options->secondary,
                     "HOST:PORT of a standby; default: as the VM was started with");
}

}  // namespace us::tools
