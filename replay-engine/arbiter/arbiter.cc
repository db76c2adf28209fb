#include "replay-engine/arbiter/arbiter.h"

#include <string_view>

#include "replay-engine/arbiter/bounded_arbiter.h"
#include "replay-engine/arbiter/claim_record.h"
#include "replay-engine/arbiter/etcd_arbiter.h"
#include "replay-engine/arbiter/file_arbiter.h"

namespace us::replay {
namespace {

UserError unknown_form(const std::string& text) {
  return {
      .id = "ARB-001",
      .exit_code = ExitCode::kUsage,
      .what = "cannot use the arbiter \"" + text + "\"",
      .seen = "neither a file nor etcd",
      .needed = "file:///PATH on storage that both hosts share, or etcd://HOST:PORT[,HOST:PORT]",
      .mend = "correct [ft] arbiter or --arbiter"};
}

// The path of "file:PATH" and "file:///PATH"; empty: there is none, or it names a folder.
std::string file_path(std::string_view rest) {
  if (rest.starts_with("//")) {
    rest.remove_prefix(2);
    if (!rest.starts_with('/')) return {};  // a host's name: NFS mounts are for that
  }
  if (rest.empty() || rest.ends_with('/') || rest.find('\0') != std::string_view::npos) return {};
  return std::string(rest);
}

}  // namespace

Result<std::unique_ptr<Arbiter>> open_arbiter(const std::string& text,
                                              const ArbiterOptions& options) {
  if (!usable_vm_name(options.vm_name) || !usable_node_name(options.node)) {
    return UserError{.id = "ARB-003",
                     .exit_code = ExitCode::kUsage,
                     .what = "an arbiter cannot tell sides apart by these names",
                     .seen = fmt::format("VM \"{}\", node \"{}\"", options.vm_name, options.node),
                     .needed =
                         "names of 1 to 255 bytes without control characters; a VM's without "
                         "'/' and with no dot at its start",
                     .mend = "name the VM and the node differently"};
  }
  std::shared_ptr<Arbiter> inner;
  if (text.starts_with("file:")) {
    const std::string path = file_path(std::string_view(text).substr(5));
    if (path.empty()) return unknown_form(text);
    inner = make_file_arbiter(path, options, real_file_calls());
  } else if (text.starts_with("etcd:")) {
    const auto endpoints = parse_etcd_endpoints(std::string_view(text).substr(5));
    if (!endpoints) return unknown_form(text);
    inner = make_etcd_arbiter(*endpoints, options);
  } else {
    return unknown_form(text);
  }
  return make_bounded_arbiter(std::move(inner), options.timeout);
}

}  // namespace us::replay
