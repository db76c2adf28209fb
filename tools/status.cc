// `understudy status`: the FT panel of a VM that runs on this host.
#include "tools/control/status.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <unistd.h>

#include "tools/control/control.h"
#include "tools/talk.h"
#include "tools/verbs.h"

namespace us::tools {
namespace {

struct Options {
  std::string name, role;
  bool watch = false, json = false;
};

// A second's wait that Ctrl-C ends; true: it did.
bool interrupted() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  const timespec second{.tv_sec = 1, .tv_nsec = 0};
  return ::sigtimedwait(&set, nullptr, &second) > 0;
}

void keep_interrupts_for_the_wait() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

void print(const nlohmann::json& reply, const Options& options, bool terminal) {
  if (options.json) {
    // Watched, a document a line.
    fmt::print("{}\n", reply.dump(options.watch ? -1 : 2, ' ', false,
                                  nlohmann::json::error_handler_t::replace));
    return;
  }
  const bool colour = terminal && std::getenv("NO_COLOR") == nullptr;
  // To the top, the panel, and what a longer one before it left over.
  if (options.watch && terminal) fmt::print("\033[H");
  const std::string text = panel(status_from_json(reply), colour);
  for (const char c : text) {
    if (c == '\n' && options.watch && terminal) fmt::print("\033[K");
    std::fputc(c, stdout);
  }
  if (options.watch) fmt::print("{}", terminal ? "\033[J" : "\n");
}

int show(const Options& options) {
  const bool terminal = ::isatty(STDOUT_FILENO) == 1 && !options.json;
  if (options.watch) keep_interrupts_for_the_wait();
  bool first = true;
  do {
    const auto reply = control_request(options.name, options.role, {{"verb", "status"}});
    if (!reply.ok()) return report(reply.error());
    if (first && options.watch && terminal) fmt::print("\033[2J");
    first = false;
    print(*reply, options, terminal);
    if (const int code = finish_output(); code != 0) return code;
  } while (options.watch && !interrupted());
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace

void add_status(CLI::App& app, const Globals&, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("status", "how a protected VM is doing");
  verb->add_option("name", options->name, "the VM's name")->required();
  verb->add_flag("--watch", options->watch, "again every second, until Ctrl-C");
  verb->add_flag("--json", options->json, "one JSON document; watched, one a line");
  verb->add_option("--role", options->role, "which side, where both run on this host")
      ->check(CLI::IsMember({"primary", "secondary"}));
  verb->callback([options, &exit_code] { exit_code = show(*options); });
}

}  // namespace us::tools
