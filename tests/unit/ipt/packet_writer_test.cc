#include "ipt/packet_writer.h"

#include <doctest/doctest.h>
#include <vector>

#include "tests/unit/ipt/libipt_oracle.h"
#include "tests/unit/ipt/trace_run.h"

namespace us::ipt::test {
namespace {

constexpr uint64_t kHuge = 1ull << 40;

// The bytes of what `events` writes after tracing was enabled at 0xffffffff81000000.
template <class Events>
Bytes written(Events events, PacketWriterConfig config = {}) {
  config.psb_period = kHuge;
  TraceBuffer buffer;
  PacketWriter writer(buffer, config);
  writer.enable(kRunStart);
  writer.flush();
  buffer.take();
  events(writer);
  writer.flush();
  return buffer.take();
}

std::vector<PacketKind> kinds_of(ByteSpan bytes) {
  std::vector<PacketKind> out;
  for (const Packet& packet : libipt_scan(bytes).packets) out.push_back(packet.kind);
  return out;
}

}  // namespace

TEST_CASE("a trace begins with PSB+, MODE.Exec and TIP.PGE") {
  TraceBuffer buffer;
  PacketWriter writer(buffer, {});
  writer.enable(kRunStart);
  writer.flush();
  using K = PacketKind;
  CHECK(kinds_of(buffer.bytes()) ==
        std::vector<K>{K::kPsb, K::kCbr, K::kPsbEnd, K::kModeExec, K::kTipPge});
}

TEST_CASE("six branches fill a short TNT, the rest waits for an address") {
  const Bytes bytes = written([](PacketWriter& writer) {
    for (const bool taken : {true, false, true, true, false, false, true})
      writer.conditional(taken);
    writer.indirect(kRunStart + 8);
  });
  // Stop bit and 101100; stop bit and 1; the address with its low two bytes.
  CHECK(bytes == Bytes{0xd8, 0x06, 0x2d, 0x08, 0x00});
}

TEST_CASE("long TNTs hold 47 branches when asked for") {
  const Bytes bytes = written(
      [](PacketWriter& writer) {
        for (int i = 0; i < 48; ++i) writer.conditional(i == 0);
      },
      {.long_tnt = true});
  CHECK(bytes == Bytes{0x02, 0xa3, 0, 0, 0, 0, 0, 0xc0, 0x04});
}

TEST_CASE("addresses take the fewest bytes that tell them from the last one") {
  const Bytes bytes = written([](PacketWriter& writer) {
    writer.indirect(0xffffffff81001234);
    writer.indirect(0xffffffff00001234);
    writer.indirect(0x0000000000401000);
    writer.indirect(0x123456789abcdef0);
  });
  CHECK(bytes == Bytes{0x2d, 0x34, 0x12, 0x4d, 0x34, 0x12, 0,    0,    0x6d, 0x00, 0x10, 0x40,
                       0,    0,    0,    0xcd, 0xf0, 0xde, 0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12});
}

TEST_CASE("an event is FUP and TIP, with MODE.Exec between them when the mode changes") {
  const Bytes bytes = written([](PacketWriter& writer) {
    writer.conditional(true);
    writer.exec_mode(kExecD);
    writer.async(kRunStart + 2, kRunStart + 16);
  });
  CHECK(bytes == Bytes{0x06, 0x3d, 0x02, 0x00, 0x99, 0x02, 0x2d, 0x10, 0x00});
}

TEST_CASE("an exit is FUP and TIP.PGD without address, and tracing goes on with TIP.PGE") {
  const Bytes bytes = written([](PacketWriter& writer) {
    writer.conditional(false);
    writer.exit(kRunStart + 2);
    writer.conditional(true);  // not traced
    writer.indirect(0x1234);   // not traced
    writer.enable(kRunStart + 3);
    writer.disable(kRunStart + 9);
  });
  CHECK(bytes == Bytes{0x04, 0x3d, 0x02, 0x00, 0x01, 0x31, 0x03, 0x00, 0x21, 0x09, 0x00});
}

TEST_CASE("a CR3 write forces out branches and writes bits 51:5") {
  const Bytes bytes = written(
      [](PacketWriter& writer) {
        writer.conditional(true);
        writer.cr3(0x8000000123456001);  // no-flush bit and PCID are not traced
      },
      {.pip_non_root = true});
  CHECK(bytes == Bytes{0x06, 0x02, 0x43, 0x01, 0x56, 0x34, 0x12, 0x00, 0x00});
}

TEST_CASE("PSB+ comes once a period, after an address, with the state a decoder needs") {
  TraceBuffer buffer;
  PacketWriter writer(buffer, {.psb_period = 2048});
  writer.cr3(0x5000);
  writer.enable(kRunStart);
  for (int i = 0; i < 20000; ++i) writer.indirect(kRunStart + (i & 0xff));
  writer.flush();
  std::vector<size_t> at;
  size_t offset = 0;
  const LibiptScan scan = libipt_scan(buffer.bytes());
  CHECK(scan.errors == 0);
  for (size_t i = 0; i < scan.packets.size(); ++i) {
    if (scan.packets[i].kind == PacketKind::kPsb) at.push_back(offset);
    offset += scan.packets[i].size;
  }
  REQUIRE(at.size() > 20);
  for (size_t i = 1; i < at.size(); ++i) {
    CHECK(at[i] - at[i - 1] >= 2048);
    CHECK(at[i] - at[i - 1] < 2048 + 64);
  }
  using K = PacketKind;
  const std::vector<K> kinds = kinds_of(buffer.bytes());
  const auto second = std::find(kinds.begin() + 1, kinds.end(), K::kPsb);
  CHECK(std::vector<K>(second, second + 6) ==
        std::vector<K>{K::kPsb, K::kCbr, K::kPip, K::kModeExec, K::kFup, K::kPsbEnd});
}

TEST_CASE("a processor that runs without indirect branches can place PSB+ when it is due") {
  TraceBuffer buffer;
  PacketWriter writer(buffer, {.psb_period = 2048});
  writer.enable(kRunStart);
  for (int i = 0; i < 100000; ++i) {
    writer.conditional(true);
    if (writer.psb_due()) writer.psb(kRunStart + 4);
  }
  writer.flush();
  uint64_t psb = 0;
  for (const PacketKind kind : kinds_of(buffer.bytes())) psb += kind == PacketKind::kPsb ? 1 : 0;
  CHECK(psb >= 7);
}

TEST_CASE("a sink that is full loses packets, and OVF says so when it has room again") {
  TraceBuffer buffer(5000);
  PacketWriter writer(buffer, {.staging_bytes = PacketWriter::kMinStaging});
  writer.enable(kRunStart);
  for (int i = 0; i < 5000; ++i) writer.indirect(kRunStart + 16 * (i & 0xff));
  CHECK(writer.overflows() > 0);
  CHECK(buffer.bytes().size() <= 5000);
  const Bytes before = buffer.take();
  for (int i = 0; i < 1000; ++i) writer.indirect(kRunStart + 16 * (i & 0xff));
  writer.exit(kRunEnd);
  writer.flush();
  const Bytes after = buffer.take();
  Bytes all = before;
  all.insert(all.end(), after.begin(), after.end());
  const LibiptScan scan = libipt_scan(all);
  CHECK(scan.errors == 0);
  for (size_t i = 0; i < scan.packets.size(); ++i) {
    if (scan.packets[i].kind != PacketKind::kOvf) continue;
    // Tracing goes on at a full address.
    REQUIRE(i + 1 < scan.packets.size());
    CHECK(scan.packets[i + 1].kind == PacketKind::kFup);
    CHECK(scan.packets[i + 1].ip_bytes == 3);
    CHECK(digest_of_trace(all).loss.overflows == 1);
    return;
  }
  FAIL("no OVF");
}

TEST_CASE("an overflow while tracing is off is told before TIP.PGE") {
  TraceBuffer buffer;
  PacketWriter writer(buffer, {});
  writer.enable(kRunStart);
  writer.overflow();
  writer.conditional(true);
  writer.exit(kRunStart + 8);
  writer.enable(kRunStart + 8);
  writer.exit(kRunStart + 9);
  writer.flush();
  using K = PacketKind;
  const std::vector<K> kinds = kinds_of(buffer.bytes());
  CHECK(std::vector<K>(kinds.end() - 5, kinds.end()) ==
        std::vector<K>{K::kOvf, K::kModeExec, K::kTipPge, K::kFup, K::kTipPgd});
}

TEST_CASE("every varied trace is well-formed from first byte to last for libipt") {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    CAPTURE(seed);
    const Bytes trace = trace_of(random_run(seed, 800), {.variation = VariationConfig::all(seed)});
    const LibiptScan scan = libipt_scan(trace);
    CHECK(scan.errors == 0);
    size_t size = 0;
    for (const Packet& packet : scan.packets) size += packet.size;
    CHECK(size == trace.size());
  }
}

}  // namespace us::ipt::test
