// A machine restored from a snapshot goes on as if it had never stopped.
#include "hv/snapshot.h"

#include <algorithm>
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

void anchor_after(hv::Machine& machine, uint64_t ticks) {
  const GuestTsc now = machine.now() + ticks;
  machine.apply(hv::AnchorInput{{.branches = machine.point().branches,
                                 .tsc = now,
                                 .ticks_per_branch_q32 = uint64_t{4} << 32,
                                 .tsc_ceiling = now + (uint64_t{1} << 40)}});
}

// As halfway, awake, and interrupted since its last input.
std::unique_ptr<hv::Machine> interrupted(NoWorld& world) {
  auto machine = halfway(world);
  while (machine->vcpu().halted() || machine->interrupts_since_input() == 0) {
    anchor_after(*machine, 200'000);
    const Branches until = machine->point().branches + 100;
    while (machine->run({.alarm = until}) == hv::MachineStop::kTimersChanged) {
    }
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
    anchor_after(machine, 200'000);
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

TEST_CASE("the interrupts since the last input, which tell places apart, are restored") {
  NoWorld world;
  auto machine = interrupted(world);
  auto restored = restored_from(snapshot_of(*machine), world);
  REQUIRE(restored.ok());
  CHECK((*restored)->interrupts_since_input() == machine->interrupts_since_input());
}

constexpr uint64_t kAccessed = 0x20;

// The entries of the guest's tables for its lowest pages, top first.
std::vector<GuestPhys> entries_of_first_page(hv::Machine& machine) {
  constexpr uint64_t kLarge = 0x80, kAddress = 0x000f'ffff'ffff'f000;
  std::vector<GuestPhys> entries;
  uint64_t table = machine.vcpu().registers().cr3 & kAddress;
  for (uint64_t entry = 0; entries.size() < 4 && (entry & kLarge) == 0; table = entry & kAddress) {
    entries.push_back(GuestPhys(table));
    REQUIRE(machine.memory().read(GuestPhys(table), {reinterpret_cast<uint8_t*>(&entry), 8}));
  }
  return entries;
}

// As a guest's kernel does that looks for idle pages, without flushing anything.
void clear_accessed(hv::Machine& machine) {
  for (const GuestPhys at : entries_of_first_page(machine))
    *machine.memory().host(at) &= static_cast<uint8_t>(~kAccessed);
}

bool accessed(hv::Machine& machine) {
  const auto entries = entries_of_first_page(machine);
  return std::any_of(entries.begin(), entries.end(),
                     [&](GuestPhys at) { return (*machine.memory().host(at) & kAccessed) != 0; });
}

TEST_CASE(
    "a translation cached before a snapshot is cached in the copy: accessed bits stay clear") {
  NoWorld world;
  auto machine = interrupted(world);
  clear_accessed(*machine);
  auto restored = restored_from(snapshot_of(*machine), world);
  REQUIRE(restored.ok());
  // Without what was cached the next fetch walks, and marks: the guest could tell.
  auto uncached = restored_from(snapshot_of(*machine), world);
  REQUIRE(uncached.ok());
  (*uncached)->vcpu().drop_caches();
  machine->step();
  (*restored)->step();
  (*uncached)->step();
  CHECK(!accessed(*machine));
  CHECK(!accessed(**restored));
  CHECK(accessed(**uncached));
  go_on(*machine);
  go_on(**restored);
  CHECK((*restored)->whole_digest().hex() == machine->whole_digest().hex());
}

TEST_CASE("cached translations that no processor can have are SNAP-010") {
  NoWorld world;
  auto machine = halfway(world);
  ByteWriter out;
  machine->vcpu().save_translations(out);
  const auto load = [&](const Bytes& bytes) {
    machine->vcpu().drop_caches();
    ByteReader in(bytes);
    const Status status = machine->vcpu().load_translations(in);
    return status.ok() ? std::string("loaded") : status.error().id;
  };
  const Bytes whole = out.bytes();
  CHECK(load(whole) == "loaded");
  CHECK(load({}) == "loaded");
  for (size_t cut = 1; cut < whole.size(); ++cut)
    CHECK(load({whole.begin(), whole.begin() + static_cast<ptrdiff_t>(cut)}) == "SNAP-010");
  // The second bank, the supervisor's, has entries: a first tag, then its page.
  REQUIRE(whole[0] + whole[1] == 0);
  REQUIRE(whole[2] > 1);
  Bytes changed = whole;
  changed[4] |= 1;  // a tag within a page
  CHECK(load(changed) == "SNAP-010");
  changed = whole;
  changed[4 + 8] |= 8;  // a flag nobody knows
  CHECK(load(changed) == "SNAP-010");
  changed = whole;
  changed[4 + 8 + 5] |= 0x10;  // a page outside memory
  CHECK(load(changed) == "SNAP-010");
  changed = whole;
  std::copy_n(whole.begin() + 4, 16, changed.begin() + 4 + 16);  // the same twice
  CHECK(load(changed) == "SNAP-010");
  changed = whole;
  changed[3] = 0xff;  // more than there is room for
  CHECK(load(changed) == "SNAP-010");
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
