// Parses the verb, runs it, returns its exit code (base/result.h).
#include "base/result.h"
#include "tools/talk.h"
#include "tools/verbs.h"

namespace us::tools {

int command_line(int argc, char** argv) {
  CLI::App app{
      "understudy: keeps a virtual machine alive when its host dies; records and replays "
      "VMs to the instruction"};
  app.require_subcommand(1);
  app.fallthrough();
  Globals globals;
  int exit_code = 0;
  app.add_flag("-q,--quiet", globals.quiet, "say nothing but errors");
  app.add_flag("-v,--verbose", globals.verbose, "say more; -vv still more");
  add_run(app, globals, exit_code);
  add_record(app, globals, exit_code);
  add_replay(app, globals, exit_code);
  add_protect(app, globals, exit_code);
  add_standby(app, globals, exit_code);
  add_log(app, globals, exit_code);
  add_vm(app, globals, exit_code);
  add_diverge(app, globals, exit_code);
  add_trace(app, globals, exit_code);
  add_status(app, globals, exit_code);
  add_operator(app, globals, exit_code);
  add_calibrate(app, globals, exit_code);
  add_hostcheck(app, globals, exit_code);
  add_version(app, globals, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? 0 : static_cast<int>(ExitCode::kUsage);
  }
  return exit_code;
}

}  // namespace us::tools
