// Arbitrary sequences of records, through the codec, frames and a folder on disk.
// RC_PARAMS="seed=N" replays what rapidcheck prints.
#include <doctest/doctest.h>
#include <filesystem>
#include <rapidcheck.h>

#include "logchannel/log_reader.h"
#include "logchannel/log_writer.h"
#include "logchannel/memory_log.h"

namespace us::log {
namespace {

namespace gen = rc::gen;

// Mostly small, sometimes anything: deltas and full values both matter.
rc::Gen<uint64_t> number() {
  return gen::oneOf(gen::inRange<uint64_t>(0, 64), gen::inRange<uint64_t>(0, 1 << 20),
                    gen::arbitrary<uint64_t>());
}

rc::Gen<Bytes> bytes() { return gen::container<Bytes>(gen::arbitrary<uint8_t>()); }

rc::Gen<std::string> text() { return gen::container<std::string>(gen::arbitrary<char>()); }

Anchor make_anchor(uint64_t branches) {
  Anchor a;
  a.branches = *gen::oneOf(gen::just(branches), number());
  a.tsc = *number();
  a.ticks_per_branch_q32 = *gen::oneOf(gen::element<uint64_t>(1ull << 32, 3ull << 30), number());
  a.tsc_ceiling = a.tsc + std::min(*number(), ~uint64_t{0} - a.tsc);
  return a;
}

DiskDone make_disk_done() {
  DiskDone d;
  d.device = *gen::arbitrary<uint8_t>();
  d.request = *gen::arbitrary<uint32_t>();
  d.outcome = *gen::element(DiskOutcome::kFailed, DiskOutcome::kDone, DiskOutcome::kData,
                            DiskOutcome::kReRead);
  if (d.outcome == DiskOutcome::kData) d.data = *bytes();
  if (d.outcome == DiskOutcome::kReRead) {
    d.offset = *number();
    d.length = *gen::inRange<uint64_t>(0, kDiskDataBytesMax + 1);
    d.data_crc = *gen::arbitrary<uint32_t>();
  }
  return d;
}

StateDigest make_state_digest() {
  StateDigest s;
  s.epoch = *number();
  s.width = *gen::element<uint8_t>(4, 8);
  const uint64_t mask = s.width == 4 ? 0xffffffff : ~uint64_t{0};
  s.registers = *gen::arbitrary<uint64_t>() & mask;
  s.devices = *number() & mask;
  if (*gen::arbitrary<bool>()) s.memory = *gen::arbitrary<uint64_t>() & mask;
  return s;
}

Section make_section() {
  Section s;
  s.name = *gen::nonEmpty(gen::container<std::string>(gen::elementOf(std::string("abz019_-."))));
  s.name.resize(std::min(s.name.size(), kNameBytesMax));
  s.data = *bytes();
  s.offset = *gen::inRange<uint64_t>(0, 1 << 20);
  s.total = s.offset + s.data.size() + *gen::inRange<uint64_t>(0, 100);
  return s;
}

Body make_body(uint64_t branches) {
  switch (*gen::inRange(0, 9)) {
    case 0: return make_anchor(branches);
    case 1: return NetFrame{*gen::arbitrary<uint8_t>(), *bytes()};
    case 2: return make_disk_done();
    case 3: return Console{*gen::arbitrary<uint8_t>(), *bytes()};
    case 4: return Command{*gen::arbitrary<uint8_t>(), *number()};
    case 5: return make_state_digest();
    case 6: return PtDigest{*number(), *bytes()};
    case 7:
      return Marker{*gen::element(MarkerKind::kCheckpoint, MarkerKind::kSnapshot,
                                  MarkerKind::kGoLive, MarkerKind::kNote),
                    *number(), *text()};
    default: return make_section();
  }
}

// Positions rise per vCPU and often tie; addresses repeat as they do in a guest.
std::vector<Record> make_records() {
  struct Floor {
    uint64_t branches = 0, instructions = 0;
  };
  std::vector<Floor> floors(kVcpuMax + 1);
  const auto rise = [](uint64_t& value) {
    const uint64_t step = *gen::oneOf(gen::just<uint64_t>(0), number());
    value += std::min(step, ~uint64_t{0} - value) / 16;
    return value;
  };
  std::vector<Record> records(*gen::inRange<size_t>(0, 60));
  std::vector<uint64_t> addresses = {0xffffffff81000000, 0x401000};
  for (Record& record : records) {
    record.vcpu = *gen::oneOf(gen::just(0u), gen::inRange(0u, kVcpuMax + 1));
    record.skippable = *gen::inRange(0, 10) == 0;
    Floor& floor = floors[record.vcpu];
    record.at.branches = rise(floor.branches);
    if (*gen::arbitrary<bool>()) record.at.instructions = rise(floor.instructions);
    if (*gen::inRange(0, 3) == 0) addresses.push_back(addresses.back() + *number());
    record.at.rip = *gen::elementOf(addresses);
    if (*gen::inRange(0, 5) == 0) record.at.rcx = *number();
    if (*gen::inRange(0, 5) == 0) record.at.tie = *gen::arbitrary<uint32_t>();
    record.body = make_body(record.at.branches);
  }
  return records;
}

FrameOptions make_frame_options() {
  FrameOptions options;
  options.flush_bytes = *gen::element<size_t>(1, 50, 500, 100'000);
  options.zstd_level = *gen::element(0, 1, 3);
  options.zstd_bytes_min = *gen::element<size_t>(1, 256);
  options.fresh_every_bytes = *gen::element<size_t>(1, 1000, 1 << 20);
  return options;
}

// A name no other process picks.
std::filesystem::path temporary_folder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "us-prop-XXXXXX").string();
  RC_ASSERT(::mkdtemp(pattern.data()) != nullptr);
  return pattern;
}

}  // namespace

TEST_CASE("any sequence of records in any frames in memory reads back equal, at equal positions") {
  CHECK(rc::check("memory round trip", [] {
    const std::vector<Record> records = make_records();
    MemorySink sink(make_frame_options());
    std::vector<LogPosition> positions;
    for (const Record& record : records) positions.push_back(sink.append(record));
    (void)sink.flush();
    MemoryStream stream(sink.bytes());
    for (size_t i = 0; i < records.size(); ++i) {
      auto record = stream.next();
      RC_ASSERT(record.ok() && record->has_value());
      RC_ASSERT(**record == records[i]);
      RC_ASSERT(stream.position() == positions[i]);
    }
    RC_ASSERT(!stream.next()->has_value());
  }));
}

TEST_CASE("any sequence of records on disk, cut anywhere, reads back as a prefix") {
  CHECK(rc::check("disk, cut", [] {
    const std::vector<Record> records = make_records();
    const std::filesystem::path folder = temporary_folder();
    LogWriterOptions options;
    options.frame = make_frame_options();
    options.segment_bytes = *gen::element<uint64_t>(1, 300, 3000, 1 << 26);
    options.flush_interval_ms = 0;
    {
      auto writer = LogWriter::create(folder, options);
      RC_ASSERT(writer.ok());
      for (const Record& record : records) (*writer)->append(record);
      RC_ASSERT((*writer)->close().ok());
    }
    uint32_t segments = *count_segments(folder);
    const auto last = folder / segment_name(segments - 1);
    const auto size = std::filesystem::file_size(last);
    const bool whole = *gen::arbitrary<bool>();
    if (!whole) std::filesystem::resize_file(last, *gen::inRange<uint64_t>(0, size));
    auto reader = LogReader::open(folder);
    RC_ASSERT(reader.ok());
    size_t count = 0;
    for (;;) {
      auto record = (*reader)->next();
      RC_ASSERT(record.ok());
      if (!record->has_value()) break;
      RC_ASSERT(count < records.size());
      RC_ASSERT(**record == records[count++]);
    }
    RC_ASSERT((*reader)->end().ended);
    if (whole) RC_ASSERT(count == records.size());
    std::filesystem::remove_all(folder);
  }));
}

TEST_CASE("any bytes fed to a frame reader and record decoder end in records or a typed error") {
  CHECK(rc::check("garbage in a frame with right checksums", [] {
    const Bytes body = *bytes();
    FrameBuilder builder({});
    const uint8_t type = *gen::inRange<uint8_t>(0, 128);
    const uint8_t flags = *gen::element<uint8_t>(0, 0, kRecordSkippable, kRecordVcpu, 3, 0x40);
    builder.append_raw(type, flags, body);
    const ByteSpan frame = builder.finish();
    FrameReader reader;
    RC_ASSERT(reader.feed(frame) == frame.size());
    auto got = reader.next();
    RC_ASSERT(got.ok() && got->has_value());
    RecordDecoder decoder;
    ByteReader in((*got)->records);
    auto record = decoder.decode(in);
    // What is accepted must be within the bounds, so that it can be written again.
    if (record.ok()) {
      RC_ASSERT(record->has_value());
      RC_ASSERT(within_bounds(**record));
    }
  }));
}

}  // namespace us::log
