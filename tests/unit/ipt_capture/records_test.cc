#include "ipt/capture/records.h"

#include <cstring>
#include <doctest/doctest.h>
#include <linux/perf_event.h>

#include "ipt/epoch_digest.h"

namespace us::ipt::test {
namespace {

constexpr uint64_t kAuxBytes = 4096;

// A ring that records are written into as the kernel does, past its end and on at its start.
struct Ring {
  explicit Ring(size_t size, uint64_t start = 0) : bytes(size), head(start), tail(start) {}

  void word(uint64_t value) {
    for (unsigned i = 0; i < 8; ++i, ++head)
      bytes[head & (bytes.size() - 1)] = static_cast<uint8_t>(value >> (8 * i));
  }
  void record(uint32_t type, std::initializer_list<uint64_t> words, int size_off = 0) {
    const auto size = static_cast<uint64_t>(8 + static_cast<int>(8 * words.size()) + size_off);
    word(uint64_t{type} | size << 48);
    for (const uint64_t w : words) word(w);
  }
  RecordSummary read(uint64_t aux_end = 0) const {
    return read_records(bytes, tail, head, aux_end, kAuxBytes);
  }

  Bytes bytes;
  uint64_t head, tail;
};

TEST_CASE("records are read wherever in the ring they lie, across its end too") {
  for (uint64_t start = 0; start < 256; start += 8) {
    CAPTURE(start);
    Ring ring(256, start);
    ring.record(PERF_RECORD_ITRACE_START, {1});
    ring.record(PERF_RECORD_AUX, {0, 100, 0});
    ring.record(PERF_RECORD_SWITCH, {});
    ring.record(PERF_RECORD_AUX, {100, 28, 0, 77});  // what sample_id_all adds is not looked at
    const RecordSummary all = ring.read();
    CHECK(all.loss == 0);
    CHECK(all.started);
    CHECK(all.records == 4);
    CHECK(all.aux_records == 2);
    CHECK(all.aux_end == 128);
  }
}

TEST_CASE("every flag of an AUX record that means loss is one") {
  for (const uint32_t flag : {1u, 2u, 4u, 8u}) {
    Ring ring(256);
    ring.record(PERF_RECORD_AUX, {0, 16, flag});
    CHECK(ring.read().loss == flag);
  }
  Ring harmless(256);
  harmless.record(PERF_RECORD_AUX, {0, 16, 0x0100});
  CHECK(harmless.read().loss == 0);
  for (const uint64_t unknown : {uint64_t{16}, uint64_t{1} << 40}) {
    Ring ring(256);
    ring.record(PERF_RECORD_AUX, {0, 16, unknown});
    CHECK(ring.read().loss == loss_flag::kBadRecord);
  }
}

TEST_CASE("lost records and throttling are losses, with how many") {
  Ring ring(256);
  ring.record(PERF_RECORD_LOST, {1, 12});
  CHECK(ring.read().loss == loss_flag::kRecordsLost);
  CHECK(ring.read().lost_records == 12);
  ring.record(PERF_RECORD_THROTTLE, {1, 2, 3});
  CHECK(ring.read().loss == (loss_flag::kRecordsLost | loss_flag::kThrottled));
  Ring short_one(256);
  short_one.record(PERF_RECORD_LOST, {1});
  CHECK(short_one.read().loss == loss_flag::kRecordsLost);
  CHECK(short_one.read().lost_records == 0);
}

TEST_CASE("trace that does not follow on what came before, or is too long, is a loss") {
  Ring gap(256);
  gap.record(PERF_RECORD_AUX, {64, 16, 0});
  CHECK(gap.read(64).loss == 0);
  CHECK(gap.read(63).loss == loss_flag::kBadRecord);
  Ring longer(256);
  longer.record(PERF_RECORD_AUX, {0, kAuxBytes + 1, 0});
  CHECK(longer.read().loss == loss_flag::kBadRecord);
}

TEST_CASE("what cannot be a record ends the reading, and nothing behind it counts") {
  struct Case {
    int size_off;
  };
  for (const int off : {-8, -4, -24, 4, 256}) {
    CAPTURE(off);
    Ring ring(256);
    ring.record(PERF_RECORD_AUX, {0, 8, 0}, off == -8 ? -32 : off);
    ring.record(PERF_RECORD_ITRACE_START, {});
    CHECK((ring.read().loss & loss_flag::kBadRecord) != 0);
  }
  Ring cut(256);
  cut.record(PERF_RECORD_SWITCH, {});
  cut.head -= 4;  // not even a header
  CHECK(cut.read().loss == loss_flag::kBadRecord);
  CHECK(cut.read().records == 0);
}

TEST_CASE("positions outside of the ring, and rings of no such size, are refused") {
  const Bytes ring(256);
  CHECK(read_records(ring, 0, 264, 0, kAuxBytes).loss == loss_flag::kBadRecord);
  CHECK(read_records(ring, 8, 0, 0, kAuxBytes).loss == loss_flag::kBadRecord);
  CHECK(read_records(ByteSpan(ring).first(200), 0, 8, 0, kAuxBytes).loss == loss_flag::kBadRecord);
  CHECK(read_records({}, 0, 0, 0, kAuxBytes).loss == loss_flag::kBadRecord);
}

}  // namespace
}  // namespace us::ipt::test
