// --executor, and `executor` in vm.toml: how the software processor executes. Nobody who reads a
// recording or follows a primary needs to know.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace us::tools {

// For verbs that take no VM options.
void add_executor_option(CLI::App& app, std::string& choice);

// Machines made from now on run by the first of these that is neither empty nor "auto"; both are
// "auto", "interpret" or "translate".
void use_executor(const std::string& option, const std::string& configured);

}  // namespace us::tools
