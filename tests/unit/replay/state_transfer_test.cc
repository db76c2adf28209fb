// A machine's state taken while it runs is the state it has when the last piece is taken.
#include "hv/state_transfer.h"

#include <cstring>
#include <doctest/doctest.h>

#include "hv/snapshot.h"
#include "tests/unit/replay/guest.h"

namespace us::replay::test {
namespace {

void anchor(hv::Machine& machine) {
  const GuestTsc now = machine.now() + 200'000;
  machine.apply(hv::AnchorInput{{.branches = machine.point().branches,
                                 .tsc = now,
                                 .ticks_per_branch_q32 = uint64_t{4} << 32,
                                 .tsc_ceiling = now + (uint64_t{1} << 40)}});
}

void run_branches(hv::Machine& machine, uint64_t branches) {
  const Branches until = machine.point().branches + branches;
  while (machine.run({.alarm = until}) == hv::MachineStop::kTimersChanged) {
  }
}

Result<std::unique_ptr<hv::Machine>> restored_from(ByteSpan bytes, NoWorld& world) {
  return hv::read_snapshot(
      [bytes, at = size_t{0}](std::span<uint8_t> out) mutable {
        if (out.size() > bytes.size() - at) return false;
        if (!out.empty()) std::memcpy(out.data(), bytes.data() + at, out.size());
        at += out.size();
        return true;
      },
      world);
}

TEST_CASE("a copy taken in pieces while the guest runs equals it, and goes on like it") {
  NoWorld world;
  auto machine = payload_machine(world, 20'000);
  anchor(*machine);
  run_branches(*machine, 50'000);
  hv::StateTransfer transfer(*machine);
  Bytes stream;
  const auto take = [&](const Bytes& piece) {
    stream.insert(stream.end(), piece.begin(), piece.end());
  };
  for (int i = 0; i < 200; ++i) {
    take(transfer.next(3));
    run_branches(*machine, 500);
    anchor(*machine);
    // Digests clear their own marks only: none of the transfer's may be lost.
    if (i % 10 == 0) machine->memory_digest();
  }
  CHECK(transfer.rounds() > 1);
  take(transfer.finish());

  auto copy = restored_from(stream, world);
  REQUIRE(copy.ok());
  CHECK((*copy)->point() == machine->point());
  CHECK((*copy)->whole_digest().hex() == machine->whole_digest().hex());
  for (int i = 0; i < 20; ++i) {
    run_branches(*machine, 5'000);
    run_branches(**copy, 5'000);
    anchor(*machine);
    anchor(**copy);
  }
  CHECK((*copy)->whole_digest().hex() == machine->whole_digest().hex());
}

TEST_CASE("a page that was taken and is zero again is zero in the copy") {
  NoWorld world;
  auto machine = payload_machine(world, 100);
  const GuestPhys at(machine->memory().low_size() - kPageSize);
  machine->memory().write(at, Bytes(16, 0xaa));
  hv::StateTransfer transfer(*machine);
  Bytes stream = transfer.next(1 << 20);
  machine->memory().write(at, Bytes(16, 0));
  const Bytes rest = transfer.finish();
  stream.insert(stream.end(), rest.begin(), rest.end());
  auto copy = restored_from(stream, world);
  REQUIRE(copy.ok());
  CHECK((*copy)->memory_digest().hex() == machine->memory_digest().hex());
}

}  // namespace
}  // namespace us::replay::test
