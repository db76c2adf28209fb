#include "tools/vm_options.h"

#include "tools/executor_option.h"

namespace us::tools {
namespace {

// "path[,ro][,reads=disk]"
Result<VmDisk> parse_disk(const std::string& text) {
  VmDisk disk;
  size_t at = text.find(',');
  disk.path = text.substr(0, at);
  while (at != std::string::npos) {
    const size_t next = text.find(',', at + 1);
    const std::string option =
        text.substr(at + 1, next == std::string::npos ? next : next - at - 1);
    if (option == "ro") {
      disk.read_only = true;
    } else if (option == "reads=disk") {
      disk.secondary_reads_disk = true;
    } else if (option != "reads=log") {
      return UserError{.id = "VM-004",
                       .what = "bad --disk " + text,
                       .seen = "\"" + option + "\"",
                       .needed = "PATH[,ro][,reads=log|disk]",
                       .mend = "understudy run --help"};
    }
    at = next;
  }
  return disk;
}

// "backend" or "backend,mac=52:54:…"
Result<VmNet> parse_net(const std::string& text) {
  const size_t at = text.find(",mac=");
  VmNet net{.mac = at == std::string::npos ? "" : text.substr(at + 5),
            .backend = text.substr(0, at)};
  if (!net.mac.empty() && !parse_mac(net.mac)) {
    return UserError{.id = "VM-004",
                     .what = "bad --net " + text,
                     .seen = "\"" + net.mac + "\"",
                     .needed = "a unicast MAC address such as 52:54:00:12:34:56",
                     .mend = "correct it, or leave ,mac= out"};
  }
  return net;
}

}  // namespace

void VmOptions::add_to(CLI::App& app) {
  app.add_option("vm", file_, "VM description (vm.toml)");
  app.add_option("--name", name_, "name of the VM");
  app.add_option("--backend", backend_, "auto, soft or kvm");
  app.add_flag(
      "--cooperative", here_.cooperative,
      "the guest reads no time stamp counter: the kvm backend then needs no patched kernel");
  add_backend_options(app, here_);
  add_executor_option(app, executor_);
  app.add_option("--memory", memory_, "guest memory, e.g. 256M");
  app.add_option("--kernel", kernel_, "bzImage, ELF with PVH note, or Multiboot image");
  app.add_option("--initrd", initrd_, "initial RAM disk");
  app.add_option("--cmdline", cmdline_, "kernel command line");
  app.add_option("--disk", disks_, "raw image: PATH[,ro][,reads=log|disk]; repeatable")->take_all();
  app.add_option("--net", nets_,
                 "none, slirp[:hostfwd=tcp:ADDR:PORT-:PORT], vde:PATH or tap:IFNAME, each "
                 "[,mac=MAC]; repeatable")
      ->take_all();
  app.add_flag("--debug-exit", debug_exit_,
               "for test kernels: port 0xf4 ends the run, pc-testdev is there");
}

Result<VmConfig> VmOptions::resolve() const {
  VmConfig config;
  if (!file_.empty()) {
    auto read = read_vm_config(file_);
    if (!read.ok()) return read;
    config = std::move(read).value();
  }
  if (!name_.empty()) config.name = name_;
  if (!kernel_.empty()) config.kernel = kernel_;
  if (!initrd_.empty()) config.initrd = initrd_;
  if (!cmdline_.empty()) config.cmdline = cmdline_;
  if (debug_exit_) config.debug_exit = true;
  if (!memory_.empty()) {
    const auto bytes = parse_size(memory_, "--memory");
    if (!bytes.ok()) return bytes.error();
    config.memory_bytes = *bytes;
  }
  if (!backend_.empty()) {
    if (backend_ != "auto" && backend_ != "soft" && backend_ != "kvm") {
      return UserError{.id = "VM-004",
                       .what = "bad --backend",
                       .seen = "\"" + backend_ + "\"",
                       .needed = "auto, soft or kvm",
                       .mend = "leave it out for auto"};
    }
    config.backend.name = backend_;
  }
  config.backend.cooperative = config.backend.cooperative || here_.cooperative;
  config.backend.by_steps = here_.by_steps;
  config.backend.cpu = here_.cpu;
  if (!executor_.empty()) config.executor = executor_;
  use_executor("", config.executor);
  if (!disks_.empty()) config.disks.clear();
  for (const std::string& text : disks_) {
    auto disk = parse_disk(text);
    if (!disk.ok()) return disk.error();
    config.disks.push_back(std::move(disk).value());
  }
  if (!nets_.empty()) config.nets.clear();
  for (const std::string& text : nets_) {
    auto net = parse_net(text);
    if (!net.ok()) return net.error();
    config.nets.push_back(std::move(net).value());
  }
  return config;
}

}  // namespace us::tools
