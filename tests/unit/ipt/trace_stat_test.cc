#include "ipt/trace_stat.h"

#include <cstdio>
#include <doctest/doctest.h>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/unit/ipt/libipt_oracle.h"
#include "tests/unit/ipt/trace_run.h"

namespace us::ipt::test {
namespace {

Bytes varied_trace(uint64_t seed) {
  return trace_of(random_run(seed, 2000),
                  {.psb_period = 1024, .variation = VariationConfig::all(seed)});
}

}  // namespace

TEST_CASE("the counts of a trace are those of libipt's packet decoder") {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    CAPTURE(seed);
    const Bytes trace = seed % 2 == 0 ? trace_of(random_run(seed, 2000)) : varied_trace(seed);
    std::array<uint64_t, kPacketKinds> count{};
    uint64_t tnt_bits = 0;
    for (const Packet& packet : libipt_scan(trace).packets) {
      ++count[static_cast<size_t>(packet.kind)];
      tnt_bits += packet.bits;
    }
    const auto of = [&](PacketKind kind) { return count[static_cast<size_t>(kind)]; };
    const TraceStat stat = trace_stat(trace);
    CHECK(stat.bytes == trace.size());
    CHECK(stat.psb == of(PacketKind::kPsb));
    CHECK(stat.tnt_bits == tnt_bits);
    CHECK(stat.tip == of(PacketKind::kTip));
    CHECK(stat.tip_pge == of(PacketKind::kTipPge));
    CHECK(stat.tip_pgd == of(PacketKind::kTipPgd));
    CHECK(stat.fup == of(PacketKind::kFup));
    CHECK(stat.pip == of(PacketKind::kPip));
    CHECK(stat.ovf == 0);
    CHECK(stat.mode == of(PacketKind::kModeExec) + of(PacketKind::kModeTsx));
    CHECK(stat.pad == of(PacketKind::kPad));
    CHECK(stat.errors == 0);
    CHECK(stat.skipped_bytes == 0);
    CHECK(stat.cut_bytes == 0);
  }
}

TEST_CASE("counts and digest are the same however the stream comes in") {
  const Bytes trace = varied_trace(5);
  const TraceStat whole = trace_stat(trace);
  TraceStatScanner scanner;
  for (const uint8_t byte : trace) scanner.feed({&byte, 1});
  CHECK(scanner.finish().to_json() == whole.to_json());
}

TEST_CASE("the JSON document has the keys of the manual page, and the digest of the normal form") {
  const std::vector<Step> run = random_run(6, 500);
  const TraceStat stat = trace_stat(trace_of(run));
  const nlohmann::json json = stat.to_json();
  for (const char* key : {"schema", "bytes", "psb", "tnt_bits", "tip", "tip_pge", "tip_pgd", "fup",
                          "pip", "ovf", "mode", "pad", "errors", "digest"}) {
    CAPTURE(key);
    CHECK(json.contains(key));
  }
  CHECK(json["tnt_bits"] == branches_of(run));
  CHECK(json["digest"] == digest_of_run(run).combined().hex());
  CHECK(stat.text().find("tnt_bits") != std::string::npos);
}

TEST_CASE("a file is counted as its bytes are, and one that is missing is a user's error") {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / "understudy_trace_stat_test.pt";
  const Bytes trace = varied_trace(7);
  FILE* const file = std::fopen(path.c_str(), "wb");
  REQUIRE(file != nullptr);
  REQUIRE(std::fwrite(trace.data(), 1, trace.size(), file) == trace.size());
  std::fclose(file);
  const auto stat = trace_stat_of_file(path);
  std::filesystem::remove(path);
  REQUIRE(stat.ok());
  CHECK(stat.value().to_json() == trace_stat(trace).to_json());
  const auto missing = trace_stat_of_file(path);
  REQUIRE(!missing.ok());
  CHECK(missing.error().id == "TRACE-001");
}

TEST_CASE("damage, skipped bytes and a cut packet are counted") {
  Bytes trace = {0xfe, 0xfe};
  const Bytes good = trace_of({{Step::kConditional, 1}});
  trace.insert(trace.end(), good.begin(), good.end());
  trace.insert(trace.end(), {0xb9, 0x00});  // no packet
  trace.insert(trace.end(), good.begin(), good.end());
  trace.insert(trace.end(), {0x4d, 0x01});  // a TIP that does not end
  const TraceStat stat = trace_stat(trace);
  CHECK(stat.errors == 1);
  CHECK(stat.skipped_bytes == 4);
  CHECK(stat.cut_bytes == 2);
  CHECK(stat.psb == 2);
  CHECK(stat.tnt_bits == 2);
}

}  // namespace us::ipt::test
