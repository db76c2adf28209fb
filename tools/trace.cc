// `understudy trace`: raw Intel PT streams.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "ipt/trace_stat.h"
#include "tools/talk.h"
#include "tools/verbs.h"

namespace us::tools {
namespace {

int stat(const std::string& file, bool json) {
  const auto counts = ipt::trace_stat_of_file(file);
  if (!counts.ok()) return report(counts.error());
  if (json) {
    fmt::print("{}\n", counts->to_json().dump(2));
  } else {
    fmt::print("{}", counts->text());
  }
  return finish_output();
}

}  // namespace

void add_trace(CLI::App& app, const Globals&, int& exit_code) {
  struct Options {
    std::string file;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* group = app.add_subcommand("trace", "raw Intel PT streams");
  group->require_subcommand(1);
  CLI::App* verb =
      group->add_subcommand("stat", "count a stream's packets and digest what it says");
  verb->add_option("file", options->file, "file of raw PT bytes")->required();
  verb->add_flag("--json", options->json, "one JSON document");
  verb->callback([options, &exit_code] { exit_code = stat(options->file, options->json); });
}

}  // namespace us::tools
