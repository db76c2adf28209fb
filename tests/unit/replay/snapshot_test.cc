// A machine restored from a snapshot goes on as if it had never stopped.
#include "hv/snapshot.h"

#include <cstring>
#include <doctest/doctest.h>

#include "tests/unit/replay/guest.h"

namespace us::replay::test {
namespace {

constexpr uint64_t kRounds = 20'000;
constexpr uint64_t kMiddle = 300'000;  // conditional branches; the payload retires about 70 a round

// Stands somewhere in the middle, its clock running and its timer armed.
std::unique_ptr<hv::Machine> halfway(NoWorld& world) {
  auto machine = payload_machine(world, kRounds);
  machine->apply(hv::AnchorInput{{.branches = machine->point().branches,
                                  .tsc = GuestTsc(1'000),
                                  .ticks_per_branch_q32 = uint64_t{4} << 32,
                                  .tsc_ceiling = GuestTsc(uint64_t{1} << 40)}});
  while (machine->run({.alarm = Branches(kMiddle)}) == hv::MachineStop::kTimersChanged) {
  }
  return machine;
}

// Goes on with anchors at fixed branch counts until the guest powers off or sleeps.
void go_on(hv::Machine& machine) {
  for (uint64_t at = kMiddle + 5'000;; at += 5'000) {
    hv::MachineStop stop;
    do {
      stop = machine.run({.alarm = Branches(at)});
    } while (stop == hv::MachineStop::kTimersChanged);
    if (stop == hv::MachineStop::kPower) return;
    REQUIRE((stop == hv::MachineStop::kLimit || stop == hv::MachineStop::kIdle));
    const GuestTsc now = machine.now() + 200'000;
    machine.apply(hv::AnchorInput{{.branches = machine.point().branches,
                                   .tsc = now,
                                   .ticks_per_branch_q32 = uint64_t{4} << 32,
                                   .tsc_ceiling = now + (uint64_t{1} << 40)}});
  }
}

Bytes snapshot_of(hv::Machine& machine) {
  Bytes bytes;
  REQUIRE(hv::write_snapshot(machine, [&](ByteSpan part) -> Status {
            bytes.insert(bytes.end(), part.begin(), part.end());
            return Done{};
          }).ok());
  return bytes;
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

TEST_CASE("a machine restored halfway ends with the digest of one that never stopped") {
  NoWorld world;
  auto never_stopped = halfway(world);
  auto saved = halfway(world);
  const Bytes bytes = snapshot_of(*saved);
  auto restored = restored_from(bytes, world);
  REQUIRE(restored.ok());
  CHECK((*restored)->point() == saved->point());
  CHECK((*restored)->whole_digest().hex() == saved->whole_digest().hex());
  go_on(*never_stopped);
  go_on(*saved);
  go_on(**restored);
  CHECK(never_stopped->point().instructions.value > kMiddle);
  CHECK(saved->whole_digest().hex() == never_stopped->whole_digest().hex());
  CHECK((*restored)->whole_digest().hex() == never_stopped->whole_digest().hex());
}

TEST_CASE("a snapshot cut anywhere or with a changed byte is refused as SNAP-001, 002 or 003") {
  NoWorld world;
  auto machine = halfway(world);
  const Bytes whole = snapshot_of(*machine);
  for (size_t cut = 0; cut < whole.size(); cut += whole.size() / 50 + 1) {
    CAPTURE(cut);
    const auto result = restored_from({whole.data(), cut}, world);
    REQUIRE(!result.ok());
    CHECK(result.error().id.starts_with("SNAP-00"));
  }
  for (size_t at = 0; at < whole.size(); at += whole.size() / 50 + 1) {
    CAPTURE(at);
    Bytes changed = whole;
    changed[at] ^= 0x10;
    const auto result = restored_from(changed, world);
    REQUIRE(!result.ok());
    CHECK(result.error().id.starts_with("SNAP-00"));
  }
}

}  // namespace
}  // namespace us::replay::test
