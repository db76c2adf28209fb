#include "tools/session.h"

#include <ctime>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "tools/talk.h"

namespace us::tools {

LiveWorld::LiveWorld()
    : events_([this] {
        if (hv::Machine* machine = machine_.load()) machine->kick();
      }) {}

LiveWorld::~LiveWorld() {
  if (world_ != nullptr) world_->stop();
}

Result<std::unique_ptr<LiveWorld>> LiveWorld::open(const VmConfig& config,
                                                   const LiveWorldOptions& options) {
  hv::WorldConfig wanted;
  wanted.console.write_waits = !options.gated;
  for (const VmDisk& disk : config.disks)
    wanted.disks.push_back({.path = disk.path,
                            .read_only = disk.read_only,
                            .tell_offsets = options.image_offsets && disk.secondary_reads_disk});
  for (const VmNet& net : config.nets) {
    auto spec = hv::parse_net_spec(net.backend);
    if (!spec.ok()) return spec.error();
    wanted.nets.push_back(std::move(spec).value());
  }
  std::unique_ptr<LiveWorld> live(new LiveWorld);
  LiveWorld* self = live.get();
  auto world = hv::World::open(wanted, live->events_, [self] {
    std::lock_guard lock(self->mutex_);
    if (self->quit_) self->quit_();
  });
  if (!world.ok()) return world.error();
  live->world_ = std::move(world).value();
  return live;
}

void LiveWorld::attach(hv::Machine* machine) { machine_ = machine; }

void LiveWorld::on_quit(std::function<void()> quit) {
  std::lock_guard lock(mutex_);
  quit_ = std::move(quit);
}

hv::MachineConfig machine_config(const VmConfig& config, const std::vector<uint64_t>& disk_sizes) {
  hv::MachineConfig machine{.memory_bytes = config.memory_bytes, .platform = {}};
  hv::PlatformConfig& p = machine.platform;
  for (size_t i = 0; i < config.disks.size(); ++i)
    p.disks.push_back({.size_bytes = disk_sizes.at(i),
                       .read_only = config.disks[i].read_only,
                       .serial = fmt::format("{}-{}", config.name.substr(0, 16), i)});
  for (size_t i = 0; i < config.nets.size(); ++i) {
    const auto mac = parse_mac(config.nets[i].mac);
    p.nets.push_back({mac ? *mac : default_mac(config.name, static_cast<unsigned>(i))});
  }
  US_CHECK(getrandom(p.rng_seed.data(), p.rng_seed.size(), 0) ==
           static_cast<ssize_t>(p.rng_seed.size()));
  p.wall_clock_start = std::time(nullptr);
  p.debug_exit = config.debug_exit;
  return machine;
}

replay::EndOfInputs run_live(LiveWorld& live, hv::Machine& machine,
                             const replay::LiveOptions& options, replay::InputObserver* observer,
                             SignalWatch& signals) {
  replay::LiveSource source(machine, live.events(), options);
  live.attach(&machine);
  live.on_quit([&source] { source.request_stop(); });
  signals.on_stop([&source] { source.request_stop(); });
  replay::Lander lander;
  const replay::EndOfInputs end = replay::run_loop(machine, source, lander, observer);
  if (end.kind == replay::EndKind::kHostFailed && end.error) report(*end.error);
  signals.on_stop({});
  live.on_quit({});
  live.attach(nullptr);
  live.world().drain();
  return end;
}

Outcome outcome_of(const replay::EndOfInputs& end) {
  using replay::EndKind;
  switch (end.kind) {
    case EndKind::kGuestPoweredOff: return {ExitCode::kDone, "guest powered off"};
    case EndKind::kGuestReset: return {ExitCode::kDone, "guest asked for a reset"};
    case EndKind::kDebugExit: return {ExitCode::kDone, "guest used the debug exit: " + end.detail};
    case EndKind::kGuestFailed: return {ExitCode::kGuestFailed, "guest failed: " + end.detail};
    case EndKind::kStoppedByUser: return {ExitCode::kDone, end.detail};
    case EndKind::kTimeLimit:
    case EndKind::kSizeLimit: return {ExitCode::kStoppedAtLimit, end.detail};
    case EndKind::kLogEnded: return {ExitCode::kStoppedAtLimit, "the log ends here: " + end.detail};
    case EndKind::kLogUnusable:
      return {end.error ? end.error->exit_code : ExitCode::kLogUnreadable, end.detail};
    case EndKind::kDiskFull: return {ExitCode::kStoppedAtLimit, end.detail};
    case EndKind::kDiverged: return {ExitCode::kDivergence, "diverged: " + end.detail};
    case EndKind::kFenced: return {ExitCode::kRefusedToGoLive, "halted: " + end.detail};
    case EndKind::kHostFailed:
      return {end.error ? end.error->exit_code : ExitCode::kHostCannot, end.detail};
    case EndKind::kHandedOver: return {ExitCode::kDone, end.detail};
    case EndKind::kOvershoot:
    case EndKind::kMiscount:
      return {end.error ? end.error->exit_code : ExitCode::kDivergence, end.detail};
  }
  US_CHECK(false, "unknown end");
}

SignalWatch::SignalWatch() {
  US_CHECK(pipe2(quit_pipe_, O_CLOEXEC) == 0);
  sigemptyset(&signals_);
  sigaddset(&signals_, SIGINT);
  sigaddset(&signals_, SIGTERM);
  US_CHECK(pthread_sigmask(SIG_BLOCK, &signals_, &mask_before_) == 0);
  thread_ = std::thread([this] { watch(); });
}

SignalWatch::~SignalWatch() {
  US_CHECK(write(quit_pipe_[1], "q", 1) == 1);
  thread_.join();
  close(quit_pipe_[0]);
  close(quit_pipe_[1]);
  US_CHECK(pthread_sigmask(SIG_SETMASK, &mask_before_, nullptr) == 0);
}

void SignalWatch::on_stop(std::function<void()> stop) {
  std::lock_guard lock(mutex_);
  stop_ = std::move(stop);
}

void SignalWatch::watch() {
  const int fd = signalfd(-1, &signals_, SFD_CLOEXEC);
  US_CHECK(fd >= 0);
  for (;;) {
    pollfd fds[] = {{.fd = fd, .events = POLLIN, .revents = 0},
                    {.fd = quit_pipe_[0], .events = POLLIN, .revents = 0}};
    if (poll(fds, 2, -1) < 0) continue;
    if (fds[1].revents != 0) break;
    signalfd_siginfo info;
    if (read(fd, &info, sizeof info) != sizeof info) continue;
    if (!take()) _exit(128 + static_cast<int>(info.ssi_signo));
  }
  close(fd);
}

// False: nothing is left to finish.
bool SignalWatch::take() {
  std::lock_guard lock(mutex_);
  if (fired_ || !stop_) return false;
  fired_ = true;
  stop_();
  return true;
}

}  // namespace us::tools
