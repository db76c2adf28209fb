// One function per subcommand: registers its options and, when chosen, says what main() returns.
#pragma once

#include <CLI/CLI.hpp>

namespace us::tools {

// What every verb can see of the options before the verb.
struct Globals {
  bool quiet = false;
  int verbose = 0;
};

// main(): parses the command line, runs the verb, returns its exit code (base/result.h).
int command_line(int argc, char** argv);

void add_run(CLI::App& app, const Globals& globals, int& exit_code);
void add_record(CLI::App& app, const Globals& globals, int& exit_code);
void add_replay(CLI::App& app, const Globals& globals, int& exit_code);
void add_protect(CLI::App& app, const Globals& globals, int& exit_code);
void add_standby(CLI::App& app, const Globals& globals, int& exit_code);
void add_log(CLI::App& app, const Globals& globals, int& exit_code);
void add_vm(CLI::App& app, const Globals& globals, int& exit_code);
void add_diverge(CLI::App& app, const Globals& globals, int& exit_code);
void add_trace(CLI::App& app, const Globals& globals, int& exit_code);
void add_status(CLI::App& app, const Globals& globals, int& exit_code);
// failover, stop, enable, disable.
void add_operator(CLI::App& app, const Globals& globals, int& exit_code);
void add_calibrate(CLI::App& app, const Globals& globals, int& exit_code);
void add_hostcheck(CLI::App& app, const Globals& globals, int& exit_code);
void add_version(CLI::App& app, const Globals& globals, int& exit_code);

}  // namespace us::tools
