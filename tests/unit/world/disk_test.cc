#include "hv/world/disk.h"

#include <doctest/doctest.h>
#include <map>
#include <random>
#include <sys/stat.h>

#include "tests/unit/world/support.h"

using namespace us;
using namespace us::hv;
using namespace us::hv::testing;

namespace {

DiskRequest request(DiskOp op, uint32_t id, uint64_t offset, uint64_t length) {
  return DiskRequest{
      .device = 0, .request = id, .op = op, .offset = offset, .length = length, .data = {}};
}

DiskRequest write_of(uint32_t id, uint64_t offset, Bytes data) {
  DiskRequest r = request(DiskOp::kWrite, id, offset, data.size());
  r.data = std::move(data);
  return r;
}

struct OpenDisk {
  Mailbox<DiskDoneInput> done;
  std::unique_ptr<DiskBackend> disk;

  explicit OpenDisk(const DiskImage& config) {
    auto opened = DiskBackend::open(config, [this](DiskDoneInput d) { done.put(std::move(d)); });
    REQUIRE(hv::testing::outcome(opened) == "ok");
    disk = std::move(opened).value();
  }
  DiskDoneInput run(DiskRequest r) {
    const uint32_t id = r.request;
    disk->submit(std::move(r));
    auto answer = done.take([&](const DiskDoneInput& d) { return d.request == id; });
    REQUIRE(answer.has_value());
    return std::move(*answer);
  }
};

}  // namespace

TEST_CASE("what is written is read back, and is in the image file") {
  const ScratchFolder folder;
  const std::string path = folder.file_of("d.img", Bytes(8192));
  {
    OpenDisk d({.path = path});
    CHECK(d.disk->size() == 8192);
    CHECK(d.run(write_of(0, 512, Bytes(1024, 0xab))).ok);
    const DiskDoneInput read = d.run(request(DiskOp::kRead, 1, 0, 2048));
    REQUIRE(read.ok);
    Bytes expected(2048);
    std::fill(expected.begin() + 512, expected.begin() + 1536, 0xab);
    CHECK(read.data == expected);
    CHECK(d.run(request(DiskOp::kFlush, 2, 0, 0)).ok);
    CHECK(d.run(request(DiskOp::kWriteZeroes, 3, 512, 512)).ok);
    CHECK(d.run(request(DiskOp::kDiscard, 4, 4096, 4096)).ok);
    CHECK(d.run(request(DiskOp::kRead, 5, 512, 512)).data == Bytes(512));
  }
  std::ifstream in(path, std::ios::binary);
  const Bytes image{std::istreambuf_iterator<char>(in), {}};
  CHECK(image.size() == 8192);
  CHECK(image[1024] == 0xab);
  CHECK(image[512] == 0);
}

TEST_CASE("requests outside the disk, of odd data, or writing to a read-only disk fail alone") {
  const ScratchFolder folder;
  const std::string path = folder.file_of("d.img", Bytes(4096));
  OpenDisk d({.path = path});
  CHECK_FALSE(d.run(request(DiskOp::kRead, 0, 4096, 512)).ok);
  CHECK_FALSE(d.run(request(DiskOp::kRead, 1, ~0ull, 512)).ok);
  CHECK_FALSE(d.run(request(DiskOp::kRead, 2, 512, ~0ull)).ok);
  CHECK_FALSE(d.run(request(DiskOp::kDiscard, 3, 0, 8192)).ok);
  DiskRequest lying = write_of(4, 0, Bytes(512));
  lying.length = 1024;
  CHECK_FALSE(d.run(std::move(lying)).ok);
  CHECK(d.run(request(DiskOp::kRead, 5, 0, 4096)).ok);
  CHECK(d.run(request(DiskOp::kRead, 6, 0, 0)).ok);
  OpenDisk ro({.path = path, .read_only = true});
  CHECK_FALSE(ro.run(write_of(0, 0, Bytes(512))).ok);
  CHECK_FALSE(ro.run(request(DiskOp::kWriteZeroes, 1, 0, 512)).ok);
  CHECK(ro.run(request(DiskOp::kFlush, 2, 0, 0)).ok);
  CHECK(ro.run(request(DiskOp::kRead, 3, 0, 512)).ok);
}

TEST_CASE("a missing, odd-sized, empty or foreign disk, and one in use, are user errors") {
  const ScratchFolder folder;
  const auto open = [](const std::string& path, bool read_only = false) {
    return outcome(DiskBackend::open({.path = path, .read_only = read_only}, [](auto) {}));
  };
  CHECK(open(folder.file("missing")) == "DISK-001");
  CHECK(open("/dev/null") == "DISK-001");
  CHECK(open(folder.file_of("odd", Bytes(1000))) == "DISK-002");
  CHECK(open(folder.file_of("empty", {})) == "DISK-002");
  const std::string path = folder.file_of("d.img", Bytes(512));
  OpenDisk first({.path = path});
  CHECK(open(path) == "DISK-003");
  CHECK(open(path, true) == "ok");
  first.disk.reset();
  CHECK(open(path) == "ok");
}

// Reads must see exactly the writes submitted before them, whatever runs at the same time; a flush
// must come after everything before it.
TEST_CASE("3000 random overlapping requests complete as if run in the order submitted") {
  const uint64_t seed = std::random_device{}();
  INFO("seed ", seed);
  std::mt19937_64 random(seed);
  constexpr uint64_t kSize = 64 * 512;
  const ScratchFolder folder;
  OpenDisk d({.path = folder.file_of("d.img", Bytes(kSize))});
  Bytes model(kSize);
  std::map<uint32_t, Bytes> expected;
  std::map<uint32_t, DiskOp> ops;
  for (uint32_t id = 0; id < 3000; ++id) {
    const uint64_t offset = random() % 60 * 512;
    const uint64_t length = (1 + random() % std::min<uint64_t>(8, 64 - offset / 512)) * 512;
    const auto begin = model.begin() + static_cast<ptrdiff_t>(offset);
    const auto end = begin + static_cast<ptrdiff_t>(length);
    switch (random() % 16) {
      case 0:
        ops[id] = DiskOp::kFlush;
        d.disk->submit(request(DiskOp::kFlush, id, 0, 0));
        break;
      case 1:
        ops[id] = DiskOp::kWriteZeroes;
        std::fill(begin, end, 0);
        d.disk->submit(request(DiskOp::kWriteZeroes, id, offset, length));
        break;
      case 2:
      case 3:
      case 4:
      case 5:
      case 6:
      case 7: {
        ops[id] = DiskOp::kRead;
        expected[id] = Bytes(begin, end);
        d.disk->submit(request(DiskOp::kRead, id, offset, length));
        break;
      }
      default: {
        Bytes data(length);
        for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
        ops[id] = DiskOp::kWrite;
        std::copy(data.begin(), data.end(), begin);
        d.disk->submit(write_of(id, offset, std::move(data)));
      }
    }
  }
  d.disk->drain();
  const auto done = d.done.items();
  REQUIRE(done.size() == 3000);
  std::vector<bool> seen(3000);
  uint32_t all_before = 0;  // every request below this is done
  for (const DiskDoneInput& answer : done) {
    CHECK(answer.ok);
    while (all_before < 3000 && seen[all_before]) ++all_before;
    if (ops[answer.request] == DiskOp::kFlush) CHECK(all_before == answer.request);
    if (ops[answer.request] == DiskOp::kRead) CHECK(answer.data == expected[answer.request]);
    CHECK_FALSE(seen[answer.request]);
    seen[answer.request] = true;
  }
  CHECK(d.run(request(DiskOp::kRead, 3000, 0, kSize)).data == model);
}

TEST_CASE("stop finishes and reports what was submitted, and ignores what comes later") {
  const ScratchFolder folder;
  OpenDisk d({.path = folder.file_of("d.img", Bytes(1 << 20))});
  for (uint32_t id = 0; id < 100; ++id)
    d.disk->submit(write_of(id, id * 512, Bytes(512, static_cast<uint8_t>(id))));
  d.disk->stop();
  CHECK(d.done.size() == 100);
  d.disk->submit(request(DiskOp::kRead, 100, 0, 512));
  d.disk->stop();
  CHECK(d.done.size() == 100);
}
