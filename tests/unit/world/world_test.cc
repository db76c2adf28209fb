#include "hv/world/world.h"

#include <atomic>
#include <doctest/doctest.h>
#include <fcntl.h>

#include "tests/unit/world/frames.h"
#include "tests/unit/world/support.h"

using namespace us;
using namespace us::hv;
using namespace us::hv::testing;

namespace {

// Waits for the next event of one kind, dropping others.
template <class T>
T next_event(WorldEvents& events) {
  for (int i = 0; i < 2000; ++i) {
    while (auto event = events.pop())
      if (T* wanted = std::get_if<T>(&*event)) return std::move(*wanted);
    events.wait_until(std::chrono::steady_clock::now() + std::chrono::milliseconds(10));
  }
  FAIL("no such event came");
  return {};
}

}  // namespace

TEST_CASE("a world brings disk completions, frames and keys as events, each after a notify") {
  const ScratchFolder folder;
  int keys[2];
  REQUIRE(::pipe2(keys, O_CLOEXEC) == 0);
  const Fd keys_in(keys[0]), keys_out(keys[1]);
  const Fd null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  std::atomic<int> notified{0};
  WorldEvents events([&] { ++notified; });
  WorldConfig config;
  config.disks = {{.path = folder.file_of("a.img", Bytes(512))},
                  {.path = folder.file_of("b.img", Bytes(2048, 0x5c))}};
  config.nets = {NetSpec{}, NetSpec{.kind = NetKind::kSlirp}};
  config.console = {.in_fd = keys_in.get(), .out_fd = null.get()};
  auto opened = World::open(config, events, [] {});
  REQUIRE(outcome(opened) == "ok");
  World& world = **opened;
  CHECK(world.disk_sizes() == std::vector<uint64_t>{512, 2048});

  world.disk(
      {.device = 1, .request = 9, .op = DiskOp::kRead, .offset = 512, .length = 512, .data = {}});
  const auto done = next_event<DiskDoneInput>(events);
  CHECK(done.device == 1);
  CHECK(done.request == 9);
  CHECK(done.data == Bytes(512, 0x5c));

  world.frame(1, arp_request(0, 0x0a000202));
  const auto frame = next_event<FrameInput>(events);
  CHECK(frame.device == 1);
  CHECK(is_arp_reply_from(frame.frame, 0x0a000202));

  REQUIRE(::write(keys_out.get(), "ls\n", 3) == 3);
  CHECK(next_event<ConsoleInput>(events).bytes == Bytes{'l', 's', '\n'});
  world.console(0, Bytes{'x'});
  world.stop();
  // An event can be taken before its producer has called notify: only now have all of them.
  CHECK(notified >= 3);
}

TEST_CASE("a world whose second disk cannot be opened is an error, and the first is free again") {
  const ScratchFolder folder;
  const std::string good = folder.file_of("a.img", Bytes(512));
  WorldEvents events([] {});
  WorldConfig config;
  config.has_console = false;
  config.disks = {{.path = good}, {.path = folder.file("missing")}};
  CHECK(outcome(World::open(config, events, [] {})) == "DISK-001");
  CHECK(outcome(DiskBackend::open({.path = good}, [](auto) {})) == "ok");
}
