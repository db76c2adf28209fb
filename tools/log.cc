// `understudy log`: looking inside a recording without running its guest.
#include <cstdio>

#include "logchannel/inspect.h"
#include "tools/talk.h"
#include "tools/verbs.h"

namespace us::tools {
namespace {

struct LogOptions {
  std::string folder;
  bool json = false;
  log::DumpOptions dump;
};

// Damage ends reading but not the report on what was read; the exit code says so.
int damage_code(const log::LogInfo& info) {
  return info.error ? report(*info.error) : finish_output();
}

int info(const LogOptions& options) {
  auto found = log::inspect(options.folder);
  if (!found.ok()) return report(found.error());
  const auto damage = found->error;
  if (options.json) {
    fmt::print("{}\n", log::info_json(*found));
  } else {
    found->error.reset();  // said once, on stderr
    fmt::print("{}", log::info_text(*found));
    found->error = damage;
  }
  return damage_code(*found);
}

int dump(LogOptions options) {
  options.dump.json = options.json;
  const Status done = log::dump(options.folder, options.dump, [](const std::string& line) {
    fmt::print("{}\n", line);
    return std::ferror(stdout) == 0;
  });
  if (!done.ok()) return report(done.error());
  return finish_output();
}

int verify(const LogOptions& options) {
  const auto found = log::verify(options.folder);
  if (!found.ok()) return report(found.error());
  if (options.json) {
    fmt::print("{}\n", log::verify_json(*found));
  } else {
    fmt::print("{}", log::verify_text(*found));
  }
  if (found->sound()) return finish_output();
  return static_cast<int>(found->info.error ? found->info.error->exit_code
                                            : ExitCode::kLogUnreadable);
}

}  // namespace

void add_log(CLI::App& app, const Globals&, int& exit_code) {
  CLI::App* group = app.add_subcommand("log", "look inside a recording");
  group->require_subcommand(1);
  const auto add = [&](const char* name, const char* help, auto action) {
    auto options = std::make_shared<LogOptions>();
    CLI::App* verb = group->add_subcommand(name, help);
    verb->add_option("recording", options->folder, "folder of the recording")->required();
    verb->add_flag("--json", options->json, "JSON instead of text");
    verb->callback([options, action, &exit_code] { exit_code = action(*options); });
    return std::pair(verb, options);
  };
  add("info", "counts, sizes and how it ended", info);
  add("verify", "check everything that can be checked without running the guest", verify);
  const auto [verb, options] = add("dump", "one line a record", dump);
  verb->add_option("--from", options->dump.from_record, "ordinal of the first record");
  verb->add_option("--count", options->dump.records_max, "at most so many records");
  verb->add_option("--type", options->dump.type, "only records of this type");
}

}  // namespace us::tools
