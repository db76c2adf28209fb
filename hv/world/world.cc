#include "hv/world/world.h"

namespace us::hv {

Result<std::unique_ptr<World>> World::open(const WorldConfig& config, WorldEvents& events,
                                           std::function<void()> quit) {
  std::unique_ptr<World> world(new World(events));
  for (const DiskImage& disk : config.disks) {
    auto backend =
        DiskBackend::open(disk, [&events](DiskDoneInput done) { events.push(std::move(done)); });
    if (!backend) return backend.error();
    world->disks_.push_back(std::move(backend).value());
  }
  for (const NetSpec& net : config.nets) {
    const auto device = static_cast<uint8_t>(world->nets_.size());
    auto backend = open_net(net, [&events, device](Bytes frame) {
      events.offer(FrameInput{.device = device, .frame = std::move(frame)});
    });
    if (!backend) return backend.error();
    world->nets_.push_back(std::move(backend).value());
  }
  if (config.has_console) {
    const uint8_t device = config.console_device;
    ConsoleHandlers handlers{
        .typed =
            [&events, device](Bytes bytes) {
              events.push(ConsoleInput{.device = device, .bytes = std::move(bytes)});
            },
        .quit = std::move(quit),
        .power_button = [&events] { events.push(CommandInput{Command::kPowerButton}); }};
    world->console_ = std::make_unique<ConsoleBackend>(config.console, std::move(handlers));
  }
  return world;
}

World::~World() { stop(); }

std::vector<uint64_t> World::disk_sizes() const {
  std::vector<uint64_t> sizes;
  for (const auto& disk : disks_) sizes.push_back(disk->size());
  return sizes;
}

void World::frame(uint8_t device, Bytes frame) {
  US_CHECK(device < nets_.size());
  nets_[device]->send(frame);
}

void World::disk(DiskRequest request) {
  US_CHECK(request.device < disks_.size());
  disks_[request.device]->submit(std::move(request));
}

void World::console(uint8_t, ByteSpan bytes) {
  if (console_) console_->write(bytes);
}

bool World::full() const { return console_ && console_->full(); }

void World::drain() {
  for (const auto& disk : disks_) disk->drain();
  if (console_) console_->flush();
}

void World::stop() {
  events_.close();  // nobody waits for room any more
  for (const auto& disk : disks_) disk->stop();
  for (const auto& net : nets_) net->stop();
  if (console_) console_->stop();
}

}  // namespace us::hv
