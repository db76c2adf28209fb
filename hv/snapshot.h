// A whole machine as a versioned stream: magic, version, configuration, state, then memory by
// chunks of non-zero pages (zstd), each part with its length and CRC-32C. Restoring and running on
// equals never having stopped.
#pragma once

#include <functional>

#include "base/bytes.h"
#include "base/result.h"
#include "hv/machine.h"

namespace us::hv {

// Version of the stream; another one is refused. 2: the state holds cached translations, and the
// interrupts since the last input.
constexpr uint32_t kSnapshotVersion = 2;

// Takes the stream's bytes in order.
using SnapshotSink = std::function<Status(ByteSpan)>;
// Fills the whole span; false: the stream ends early.
using SnapshotSource = std::function<bool(std::span<uint8_t>)>;

// The machine must stand between instructions (it always does when nobody runs it). It is not
// changed: it goes on as if nothing had been written, and so does a restored copy. Errors: the
// sink's.
Status write_snapshot(Machine& machine, const SnapshotSink& sink);

// The pieces a stream is made of, for who sends a machine bit by bit (hv/state_transfer.h): first
// the head, then pages in any order and as often as they change (the last one counts), then the
// tail.
Bytes snapshot_head(const Machine& machine);
// Pages as they are, not packed: the channel or file below packs.
Bytes snapshot_pages(const GuestMemory& memory, std::span<const uint64_t> pages);
Bytes snapshot_tail(Machine& machine);

// A machine restored from the stream; its disk requests in flight are not submitted (see
// Platform::disk_requests_in_flight). Every length is checked before it is believed. Errors:
// SNAP-001 no snapshot, SNAP-002 other version, SNAP-003 damaged or cut short, and those of
// Machine::create.
Result<std::unique_ptr<Machine>> read_snapshot(const SnapshotSource& source, OutputSink& output);

}  // namespace us::hv
