// The live world of one machine: its disks, networks and console, off the vCPU thread. Outputs go
// in through OutputSink; what the world brings comes out of WorldEvents.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "hv/core/input_output.h"
#include "hv/world/console.h"
#include "hv/world/disk.h"
#include "hv/world/events.h"
#include "hv/world/net.h"

namespace us::hv {

struct WorldConfig {
  std::vector<DiskImage> disks = {};
  std::vector<NetSpec> nets = {};
  bool has_console = true;
  ConsoleConfig console = {};
  uint8_t console_device = 0;  // that the keys go to
};

class World final : public OutputSink {
 public:
  // Opens everything, in order: disks, networks, console; on an error what was open is closed.
  // `events` outlives the world. `quit` is called, from the console's thread, when the user quits.
  static Result<std::unique_ptr<World>> open(const WorldConfig& config, WorldEvents& events,
                                             std::function<void()> quit);
  ~World() override;

  // Sizes in bytes, by disk: what the machine's platform is configured with.
  std::vector<uint64_t> disk_sizes() const;

  // OutputSink; the devices exist.
  void frame(uint8_t device, Bytes frame) override;
  void disk(DiskRequest request) override;
  void console(uint8_t device, ByteSpan bytes) override;
  bool full() const override;

  // Everything written so far is with the host: disks done, console text out. Completions need room
  // in the event queue, so the thread that empties it must not wait here.
  void drain();
  // Closes the event queue, finishes disk requests, ends all threads, restores the terminal.
  void stop();

 private:
  explicit World(WorldEvents& events) : events_(events) {}

  WorldEvents& events_;
  std::vector<std::unique_ptr<DiskBackend>> disks_;
  std::vector<std::unique_ptr<NetBackend>> nets_;
  std::unique_ptr<ConsoleBackend> console_;
};

}  // namespace us::hv
