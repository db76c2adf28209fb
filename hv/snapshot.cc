#include "hv/snapshot.h"

#include <algorithm>
#include <cstring>
#include <zstd.h>

#include "base/crc32c.h"
#include "hv/machine_config.h"

namespace us::hv {
namespace {

constexpr char kMagic[8] = {'U', 'S', 'S', 'N', 'A', 'P', '\r', '\n'};
constexpr int kZstdLevel = 1;
constexpr size_t kPagesPerChunk = 256;

enum class Part : uint32_t { kConfig = 1, kState = 2, kPages = 3, kEnd = 4, kRawPages = 5 };

// Bounds on what a part may claim: page chunks hold at most kPagesPerChunk raw pages and their
// numbers.
constexpr size_t kConfigMax = 64 << 10;
constexpr size_t kStateMax = 64 << 20;
constexpr size_t kChunkRaw = kPagesPerChunk * (kPageSize + 8);

struct PartHeader {
  uint32_t part;
  uint32_t crc;
  uint64_t size;
};
static_assert(sizeof(PartHeader) == 16);

UserError damaged(std::string seen) {
  return {.id = "SNAP-003",
          .exit_code = ExitCode::kLogUnreadable,
          .what = "the snapshot is damaged",
          .seen = std::move(seen),
          .needed = "the stream as it was written, to its end",
          .mend = "take the snapshot again"};
}

void put_part(ByteWriter& out, Part part, ByteSpan body) {
  out.put(static_cast<uint32_t>(part));
  out.put(crc32c(body));
  out.put(static_cast<uint64_t>(body.size()));
  out.put_bytes(body);
}

Status put_packed_pages(const SnapshotSink& sink, const GuestMemory& memory) {
  Bytes packed(ZSTD_compressBound(kChunkRaw));
  ByteWriter chunk;
  const auto put_chunk = [&]() -> Status {
    const size_t size =
        ZSTD_compress(packed.data(), packed.size(), chunk.bytes().data(), chunk.size(), kZstdLevel);
    US_CHECK(!ZSTD_isError(size), "zstd: {}", ZSTD_getErrorName(size));
    chunk = {};
    ByteWriter part;
    put_part(part, Part::kPages, {packed.data(), size});
    return sink(part.bytes());
  };
  for (uint64_t i = 0; i < memory.page_count(); ++i) {
    const uint8_t* page = memory.page_host(i);
    if (page_is_zero(page)) continue;
    chunk.put(i);
    chunk.put_bytes({page, kPageSize});
    if (chunk.size() < kChunkRaw) continue;
    if (Status s = put_chunk(); !s.ok()) return s;
  }
  return chunk.size() == 0 ? Status(Done{}) : put_chunk();
}

// Reads one part, bounded by what its kind may hold.
Result<std::pair<Part, Bytes>> get_part(const SnapshotSource& source) {
  uint8_t raw[sizeof(PartHeader)];
  if (!source(raw)) return damaged("it ends where a part should begin");
  PartHeader header;
  std::memcpy(&header, raw, sizeof header);
  size_t most = 0;
  switch (static_cast<Part>(header.part)) {
    case Part::kConfig: most = kConfigMax; break;
    case Part::kState: most = kStateMax; break;
    case Part::kPages: most = ZSTD_compressBound(kChunkRaw); break;
    case Part::kRawPages: most = kChunkRaw; break;
    case Part::kEnd: most = 0; break;
    default: return damaged(fmt::format("an unknown part {}", header.part));
  }
  if (header.size > most) return damaged(fmt::format("a part of {} bytes", header.size));
  Bytes body(header.size);
  if (!source(body)) return damaged("it ends inside a part");
  if (crc32c(body) != header.crc) return damaged("a part's checksum does not match");
  return std::pair{static_cast<Part>(header.part), std::move(body)};
}

Status take_raw_pages(GuestMemory& memory, ByteSpan raw) {
  ByteReader in(raw);
  while (!in.at_end()) {
    const uint64_t index = in.get<uint64_t>();
    const ByteSpan page = in.get_span(kPageSize);
    if (in.failed() || index >= memory.page_count()) return damaged("a page that does not exist");
    memory.write(memory.page_address(index), page);
  }
  return Done{};
}

Status take_pages(GuestMemory& memory, ByteSpan packed) {
  Bytes raw(kChunkRaw);
  const size_t size = ZSTD_decompress(raw.data(), raw.size(), packed.data(), packed.size());
  if (ZSTD_isError(size)) return damaged(ZSTD_getErrorName(size));
  return take_raw_pages(memory, {raw.data(), size});
}

Result<std::unique_ptr<Machine>> machine_of(ByteSpan config, OutputSink& output) {
  ByteReader in(config);
  const MachineConfig parsed = decode_machine_config(in);
  if (in.failed() || !in.at_end()) return damaged("a machine configuration that makes no sense");
  return Machine::create(parsed, output);
}

}  // namespace

Bytes snapshot_head(const Machine& machine) {
  ByteWriter head, config;
  head.put_bytes({reinterpret_cast<const uint8_t*>(kMagic), sizeof kMagic});
  head.put(kSnapshotVersion);
  encode(machine.config(), config);
  put_part(head, Part::kConfig, config.bytes());
  return head.take();
}

Bytes snapshot_pages(const GuestMemory& memory, std::span<const uint64_t> pages) {
  ByteWriter out;
  for (size_t first = 0; first < pages.size(); first += kPagesPerChunk) {
    ByteWriter chunk;
    for (const uint64_t page :
         pages.subspan(first, std::min(kPagesPerChunk, pages.size() - first))) {
      chunk.put(page);
      chunk.put_bytes({memory.page_host(page), kPageSize});
    }
    put_part(out, Part::kRawPages, chunk.bytes());
  }
  return out.take();
}

Bytes snapshot_tail(Machine& machine) {
  ByteWriter tail, state;
  machine.save_state(state);
  put_part(tail, Part::kState, state.bytes());
  put_part(tail, Part::kEnd, {});
  return tail.take();
}

Status write_snapshot(Machine& machine, const SnapshotSink& sink) {
  if (Status s = sink(snapshot_head(machine)); !s.ok()) return s;
  if (Status s = put_packed_pages(sink, machine.memory()); !s.ok()) return s;
  return sink(snapshot_tail(machine));
}

Result<std::unique_ptr<Machine>> read_snapshot(const SnapshotSource& source, OutputSink& output) {
  uint8_t magic[sizeof kMagic];
  uint8_t version[4];
  if (!source(magic) || std::memcmp(magic, kMagic, sizeof kMagic) != 0) {
    return UserError{.id = "SNAP-001",
                     .exit_code = ExitCode::kLogUnreadable,
                     .what = "this is no snapshot",
                     .seen = "another beginning",
                     .needed = "a stream that starts with USSNAP",
                     .mend = "give the file that a snapshot was saved to"};
  }
  uint32_t seen = 0;
  if (source(version)) std::memcpy(&seen, version, 4);
  if (seen != kSnapshotVersion) {
    return UserError{.id = "SNAP-002",
                     .exit_code = ExitCode::kLogUnreadable,
                     .what = "the snapshot has another format version",
                     .seen = fmt::format("version {}", seen),
                     .needed = fmt::format("version {}", kSnapshotVersion),
                     .mend = "restore it with the build that made it"};
  }
  std::unique_ptr<Machine> machine;
  Bytes state;
  for (;;) {
    auto part = get_part(source);
    if (!part.ok()) return part.error();
    auto& [kind, body] = *part;
    if (kind == Part::kConfig && machine == nullptr) {
      auto made = machine_of(body, output);
      if (!made.ok()) return made;
      machine = std::move(made).value();
    } else if (machine == nullptr) {
      return damaged("no machine configuration before the rest");
    } else if (kind == Part::kState) {
      state = std::move(body);
    } else if (kind == Part::kPages) {
      if (Status s = take_pages(machine->memory(), body); !s.ok()) return s.error();
    } else if (kind == Part::kRawPages) {
      if (Status s = take_raw_pages(machine->memory(), body); !s.ok()) return s.error();
    } else if (kind == Part::kEnd) {
      break;
    }
  }
  ByteReader in(state);
  if (Status s = machine->load_state(in); !s.ok()) return s.error();
  return machine;
}

}  // namespace us::hv
