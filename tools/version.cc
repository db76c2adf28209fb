// `understudy version`: what this build is and which formats it reads and writes.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "hv/core/executor.h"
#include "hv/machine_config.h"
#include "hv/snapshot.h"
#include "logchannel/channel/message.h"
#include "logchannel/log_files.h"
#include "replay-engine/bookmark.h"
#include "tools/talk.h"
#include "tools/verbs.h"

namespace us::tools {
namespace {

const char* compiler() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#else
  return "GCC " __VERSION__;
#endif
}

const char* sanitizers() {
#ifdef US_SANITIZED
  return "on";
#else
  return "off";
#endif
}

// `protocol` is the channel's between two hosts.
void print_json() {
  const nlohmann::ordered_json out{
      {"schema", "understudy.version.v1"},
      {"version", UNDERSTUDY_VERSION},
      {"build", {{"compiler", compiler()}, {"sanitizers", sanitizers()}}},
      {"formats",
       {{"log", log::kFormatVersion},
        {"snapshot", hv::kSnapshotVersion},
        {"saved_replay", replay::kBookmarkVersion},
        {"machine", hv::kMachineConfigVersion}}},
      {"protocol", log::kProtocolVersion},
      {"backends", {"soft", "kvm"}},
      {"executors", {"interpret", "translate"}},
      {"executor", hv::name_of(hv::default_executor())}};
  fmt::print("{}\n", out.dump(2));
}

void print_text() {
  fmt::print("understudy {}\n", UNDERSTUDY_VERSION);
  fmt::print("build     {}, sanitizers {}\n", compiler(), sanitizers());
  fmt::print("formats   log {}, snapshot {}, saved replay {}, machine {}\n", log::kFormatVersion,
             hv::kSnapshotVersion, replay::kBookmarkVersion, hv::kMachineConfigVersion);
  fmt::print("protocol  {}\n", log::kProtocolVersion);
  fmt::print("backends  soft, kvm\n");
  fmt::print("executors interpret, translate; default {}\n", hv::name_of(hv::default_executor()));
}

}  // namespace

void add_version(CLI::App& app, const Globals&, int& exit_code) {
  auto json = std::make_shared<bool>(false);
  CLI::App* verb = app.add_subcommand("version", "say what this build is: version and formats");
  verb->add_flag("--json", *json, "one JSON document");
  verb->callback([json, &exit_code] {
    if (*json) {
      print_json();
    } else {
      print_text();
    }
    exit_code = finish_output();
  });
}

}  // namespace us::tools
