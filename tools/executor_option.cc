#include "tools/executor_option.h"

#include "hv/core/executor.h"

namespace us::tools {

void add_executor_option(CLI::App& app, std::string& choice) {
  app.add_option("--executor", choice,
                 "how guest code is executed: interpret, translate (hot code becomes host code), "
                 "or auto: translate where the host suits it")
      ->envname("UNDERSTUDY_EXECUTOR")
      ->check(CLI::IsMember({"auto", "interpret", "translate"}));
}

void use_executor(const std::string& option, const std::string& configured) {
  for (const std::string& name : {option, configured}) {
    if (const auto executor = hv::executor_named(name)) return hv::set_default_executor(*executor);
  }
}

}  // namespace us::tools
