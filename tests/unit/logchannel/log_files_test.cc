// Recordings on disk: whole, cut, damaged, mixed up, and on a disk that fills.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "samples.h"

namespace us::log {
namespace {

namespace fs = std::filesystem;

// Small frames and segments, so that a few records make many.
LogWriterOptions small_options() {
  LogWriterOptions options;
  options.frame.flush_bytes = 64;
  options.segment_bytes = 250;
  options.flush_interval_ms = 0;
  return options;
}

fs::path make_recording(const TemporaryFolder& folder, const std::vector<Record>& records,
                        const LogWriterOptions& options = small_options(),
                        const std::string& name = "rec") {
  auto writer = LogWriter::create(folder / name, options);
  REQUIRE(writer.ok());
  for (const Record& record : records) (*writer)->append(record);
  REQUIRE((*writer)->close().ok());
  return folder / name;
}

LogWriterOptions one_segment() {
  LogWriterOptions options = small_options();
  options.segment_bytes = 1 << 20;
  return options;
}

void resign(Bytes& header) {  // an outer header changed on purpose: make its checksum right again
  uint32_t length;
  std::memcpy(&length, header.data() + 8, 4);
  const uint32_t crc = crc32c(ByteSpan(header).subspan(0, length - 4));
  std::memcpy(header.data() + length - 4, &crc, 4);
}

std::string error_id(const fs::path& folder) {
  const ReadBack back = read_back(folder);
  return back.error ? back.error->id : "none";
}

}  // namespace

TEST_CASE("a recording over several segments reads back whole and complete") {
  TemporaryFolder folder;
  const std::vector<Record> records = sample_sequence();
  const fs::path path = make_recording(folder, records);
  CHECK(fs::exists(path / "000001.uslog"));
  const ReadBack back = read_back(path);
  CHECK_FALSE(back.error);
  CHECK(back.records == records);
  CHECK(back.end.complete);
  CHECK(back.end.reason == "end record (stopped by user)");
}

TEST_CASE("the largest records of each kind survive the way to disk and back") {
  TemporaryFolder folder;
  const std::vector<Record> records = {
      at(1, DiskDone{.outcome = DiskOutcome::kData, .data = pattern_bytes(kDiskDataBytesMax)}),
      at(2, NetFrame{3, pattern_bytes(kNetFrameBytesMax)}),
      at(3, Section{std::string(kNameBytesMax, 'x'), 0, kSectionBytesMax, Bytes(kSectionBytesMax)}),
      at(4, Console{0, pattern_bytes(kConsoleBytesMax)})};
  const ReadBack back = read_back(make_recording(folder, records, LogWriterOptions{}));
  CHECK_FALSE(back.error);
  CHECK(back.records == records);
}

TEST_CASE("a recording cut at any byte of its last segment reads as a prefix, truncated") {
  TemporaryFolder folder;
  const std::vector<Record> records = sample_sequence();
  const fs::path path = make_recording(folder, records, one_segment());
  const fs::path segment = path / "000000.uslog";
  const Bytes whole = read_bytes(segment);
  size_t most = 0;
  for (size_t length = 0; length < whole.size(); ++length) {
    fs::resize_file(segment, 0);
    write_bytes(segment, ByteSpan(whole).subspan(0, length));
    const ReadBack back = read_back(path);
    INFO(length);
    REQUIRE_FALSE(back.error);
    REQUIRE(is_prefix(back.records, records));
    REQUIRE(back.end.ended);
    REQUIRE_FALSE(back.end.complete);
    REQUIRE_FALSE(back.end.reason.empty());
    REQUIRE(back.records.size() >= most);
    most = back.records.size();
  }
  CHECK(most > 0);
}

TEST_CASE("any single bit flipped in any file is refused, and no wrong record is yielded before") {
  TemporaryFolder folder;
  const std::vector<Record> records = sample_sequence();
  LogWriterOptions options = small_options();
  options.segment_bytes = 600;
  const fs::path path = make_recording(folder, records, options);
  for (const auto& entry : fs::directory_iterator(path)) {
    const Bytes good = read_bytes(entry.path());
    for (size_t bit = 0; bit < good.size() * 8; ++bit) {
      Bytes bad = good;
      bad[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
      write_bytes(entry.path(), bad);
      const ReadBack back = read_back(path);
      INFO(entry.path().filename().string() << " bit " << bit);
      REQUIRE(back.error.has_value());
      REQUIRE(back.error->id.rfind("LOG-", 0) == 0);
      REQUIRE(is_prefix(back.records, records));
    }
    write_bytes(entry.path(), good);
  }
}

TEST_CASE("a missing folder or manifest is LOG-001, a foreign file LOG-002") {
  TemporaryFolder folder;
  CHECK(error_id(folder / "nowhere") == "LOG-001");
  const fs::path path = make_recording(folder, sample_sequence());
  write_bytes(path / "manifest", Bytes(200, 'x'));
  CHECK(error_id(path) == "LOG-002");
  fs::remove(path / "manifest");
  CHECK(error_id(path) == "LOG-001");
}

TEST_CASE("another format version or a required feature that is unknown is LOG-003") {
  TemporaryFolder folder;
  const fs::path path = make_recording(folder, sample_sequence());
  const Bytes good = read_bytes(path / "manifest");
  Bytes bad = good;
  bad[12] = 2;
  resign(bad);
  write_bytes(path / "manifest", bad);
  const ReadBack back = read_back(path);
  REQUIRE(back.error.has_value());
  CHECK(back.error->id == "LOG-003");
  CHECK(back.error->seen == "log format version 2");
  bad = good;
  bad[16] = 1;
  resign(bad);
  write_bytes(path / "manifest", bad);
  CHECK(error_id(path) == "LOG-003");
  bad = good;
  bad[24] = 1;  // an optional feature
  resign(bad);
  write_bytes(path / "manifest", bad);
  CHECK(error_id(path) == "none");
}

TEST_CASE(
    "a segment missing between others is LOG-005 and named; the last one missing, truncated") {
  TemporaryFolder folder;
  const std::vector<Record> records = sample_sequence();
  const fs::path path = make_recording(folder, records);
  REQUIRE(fs::exists(path / "000002.uslog"));
  fs::rename(path / "000001.uslog", path / "aside");
  const ReadBack back = read_back(path);
  REQUIRE(back.error.has_value());
  CHECK(back.error->id == "LOG-005");
  CHECK(back.error->seen.find("000001.uslog is missing") == 0);
  fs::rename(path / "aside", path / "000001.uslog");
  fs::path last;
  for (uint32_t n = 0; fs::exists(path / segment_name(n)); ++n) last = path / segment_name(n);
  fs::remove(last);
  const ReadBack cut = read_back(path);
  CHECK_FALSE(cut.error);
  CHECK_FALSE(cut.end.complete);
  CHECK(is_prefix(cut.records, records));
}

TEST_CASE("segments swapped or doubled are LOG-007, one of another recording LOG-008") {
  TemporaryFolder folder;
  const fs::path path = make_recording(folder, sample_sequence());
  const Bytes one = read_bytes(path / "000001.uslog");
  const Bytes two = read_bytes(path / "000002.uslog");
  write_bytes(path / "000001.uslog", two);
  write_bytes(path / "000002.uslog", one);
  CHECK(error_id(path) == "LOG-007");
  write_bytes(path / "000001.uslog", one);
  write_bytes(path / "000002.uslog", one);
  CHECK(error_id(path) == "LOG-007");
  const fs::path other = make_recording(folder, sample_sequence(), small_options(), "other");
  write_bytes(path / "000002.uslog", read_bytes(other / "000002.uslog"));
  CHECK(error_id(path) == "LOG-008");
}

TEST_CASE("a segment cut short before another is LOG-012, and one cut in its header LOG-004") {
  TemporaryFolder folder;
  const fs::path path = make_recording(folder, sample_sequence());
  const uint64_t size = fs::file_size(path / "000001.uslog");
  fs::resize_file(path / "000001.uslog", size - 1);
  CHECK(error_id(path) == "LOG-012");
  fs::resize_file(path / "000001.uslog", 20);
  CHECK(error_id(path) == "LOG-004");
}

TEST_CASE("anything after the end record is LOG-013") {
  TemporaryFolder folder;
  std::vector<Record> records = {at(1, End{}), at(2, Command{1, 0})};
  CHECK(error_id(make_recording(folder, records, one_segment(), "same-frame")) == "LOG-013");
  LogWriterOptions options = one_segment();
  options.frame.flush_bytes = 1;
  CHECK(error_id(make_recording(folder, records, options, "next-frame")) == "LOG-013");
}

TEST_CASE("an unknown record is LOG-011, a skippable one is skipped and counted") {
  for (const bool skippable : {false, true}) {
    TemporaryFolder folder;
    const fs::path path = make_recording(folder, {}, one_segment());
    FrameBuilder builder({});
    builder.append(at(1, Command{1, 0}));
    builder.append_raw(99, skippable ? kRecordSkippable : 0, Bytes{1, 2, 3});
    builder.append(at(2, End{}));
    const ByteSpan frame = builder.finish();
    Bytes segment = read_bytes(path / "000000.uslog");
    segment.insert(segment.end(), frame.begin(), frame.end());
    write_bytes(path / "000000.uslog", segment);
    const ReadBack back = read_back(path);
    CHECK(back.records.size() == (skippable ? 2 : 1));
    CHECK((back.error ? back.error->id : "none") == (skippable ? "none" : "LOG-011"));
    CHECK(read_back(path, {.keep_unknown = true}).records.size() == (skippable ? 3 : 1));
  }
}

TEST_CASE("a tail of zeros, as a host crash leaves it, reads as truncated; other junk is LOG-006") {
  TemporaryFolder folder;
  std::vector<Record> records = sample_sequence();
  records.pop_back();
  const fs::path path = make_recording(folder, records, one_segment());
  Bytes segment = read_bytes(path / "000000.uslog");
  segment.resize(segment.size() + 5000);
  write_bytes(path / "000000.uslog", segment);
  const ReadBack back = read_back(path);
  CHECK_FALSE(back.error);
  CHECK_FALSE(back.end.complete);
  CHECK(back.records == records);
  segment.back() = 1;
  write_bytes(path / "000000.uslog", segment);
  CHECK(error_id(path) == "LOG-006");
}

TEST_CASE("a folder with anything in it, or that cannot be made, is refused with LOG-014") {
  TemporaryFolder folder;
  const fs::path path = make_recording(folder, sample_sequence());
  auto again = LogWriter::create(path);
  REQUIRE_FALSE(again.ok());
  CHECK(again.error().id == "LOG-014");
  auto nowhere = LogWriter::create(folder / "a/b");
  REQUIRE_FALSE(nowhere.ok());
  CHECK(nowhere.error().id == "LOG-014");
}

TEST_CASE("a writer over its size limit says so, and still takes the end record") {
  TemporaryFolder folder;
  LogWriterOptions options = small_options();
  options.bytes_max = 2000;
  auto writer = LogWriter::create(folder / "rec", options);
  REQUIRE(writer.ok());
  uint64_t branches = 0;
  while (!(*writer)->limit_reached() && branches < 10'000) {
    ++branches;
    (*writer)->append(at(branches, Command{1, branches}));
  }
  CHECK(branches < 10'000);
  (*writer)->append(at(++branches, End{EndReason::kSizeLimit, {}, 0, 0, 0, 0, 0, ""}));
  REQUIRE((*writer)->close().ok());
  const ReadBack back = read_back(folder / "rec");
  CHECK(back.end.complete);
  CHECK(back.records.size() == branches);
}

TEST_CASE("a disk that fills stops the recording with LOG-015, valid up to its last whole frame") {
  TemporaryFolder folder;
  const fs::path path = folder / "rec";
  // In a child, because the limit on file sizes stands in for the full disk and holds for a
  // process.
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{5000, 5000};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(2);
    auto writer = LogWriter::create(path, one_segment());
    if (!writer) ::_exit(3);
    for (uint64_t i = 1; i < 10'000; ++i) (*writer)->append(at(i, NetFrame{0, pattern_bytes(60)}));
    const Status status = (*writer)->close();
    if (status || status.error().id != "LOG-015") ::_exit(4);
    ::_exit(status.error().exit_code == ExitCode::kStoppedAtLimit ? 0 : 5);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  const ReadBack back = read_back(path);
  CHECK_FALSE(back.error);
  CHECK_FALSE(back.end.complete);
  CHECK(back.end.reason.find("no end record") == 0);  // the torn frame was cut off
  CHECK(back.records.size() > 10);
}

TEST_CASE(
    "a writer killed with SIGKILL while writing leaves a recording that reads to a whole frame") {
  for (int round = 0; round < 5; ++round) {
    TemporaryFolder folder;
    const fs::path path = folder / "rec";
    int ready[2];
    REQUIRE(::pipe(ready) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      auto writer = LogWriter::create(path, small_options());
      for (uint64_t i = 1;; ++i) {
        (*writer)->append(at(i, NetFrame{0, pattern_bytes(60)}));
        if (i == 1000u + 100u * static_cast<unsigned>(round) && ::write(ready[1], "x", 1) != 1)
          break;
      }
      ::_exit(1);
    }
    char byte;
    REQUIRE(::read(ready[0], &byte, 1) == 1);
    ::kill(child, SIGKILL);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    ::close(ready[0]);
    ::close(ready[1]);
    const ReadBack back = read_back(path);
    CHECK_FALSE(back.error);
    CHECK_FALSE(back.end.complete);
    CHECK(back.records.size() >= 990);
  }
}

}  // namespace us::log
