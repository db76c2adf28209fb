// The capture against a kernel that does nothing but move bytes: the copier, buffers that wrap, and
// sinks without room. What a kernel and a processor do besides, tests/unit/kvm/trace_test.cc has.
#include "ipt/capture/capture.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <doctest/doctest.h>
#include <mutex>
#include <thread>

#include "tests/unit/ipt/trace_run.h"

namespace us::ipt::test {
namespace {

constexpr size_t kPage = 4096;

// One event. Bytes are published as they are written; where there is no room, writing waits.
class PlainKernel final : public TraceHost {
 public:
  void write(ByteSpan bytes) {
    for (const uint8_t byte : bytes) {
      while (written_ - __atomic_load_n(&page().aux_tail, __ATOMIC_ACQUIRE) == aux_.size()) {
        publish();
        std::this_thread::yield();
      }
      aux_[written_ & (aux_.size() - 1)] = byte;
      ++written_;
    }
    publish();
  }
  bool enabled = false;
  int opens = 0;

  std::optional<std::string> read_file(const std::string&) override { return std::nullopt; }
  int open(const perf_event_attr&, pid_t) override {
    control_.assign(2 * kPage / 8, 0);
    written_ = published_ = 0;
    ++opens;
    return 7;
  }
  void close(int) override {}
  int control(int, unsigned long request) override {
    enabled = request == PERF_EVENT_IOC_ENABLE;
    if (enabled && written_ == 0 && page().data_head == 0) record(PERF_RECORD_ITRACE_START, {1});
    return 0;
  }
  ssize_t read(int, void*, size_t size) override { return static_cast<ssize_t>(size); }
  void* map(int, size_t bytes, uint64_t offset, int&) override {
    if (offset == 0) return control_.data();
    aux_.assign(bytes, 0);
    return aux_.data();
  }
  void unmap(void*, size_t) override {}
  size_t page_bytes() override { return kPage; }
  int wait(int, int timeout_ms) override {
    std::unique_lock lock(mutex_);
    const bool there =
        woken_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [this] { return readable_; });
    readable_ = false;
    return there ? 1 : 0;
  }

 private:
  perf_event_mmap_page& page() { return *reinterpret_cast<perf_event_mmap_page*>(control_.data()); }
  void publish() {
    if (written_ != published_) record(PERF_RECORD_AUX, {published_, written_ - published_, 0});
    published_ = written_;
    __atomic_store_n(&page().aux_head, published_, __ATOMIC_RELEASE);
    const std::lock_guard lock(mutex_);
    readable_ = true;
    woken_.notify_all();
  }
  void record(uint32_t type, std::initializer_list<uint64_t> words) {
    uint64_t head = page().data_head;
    const auto put = [&](uint64_t word) {
      control_[kPage / 8 + (head / 8) % (kPage / 8)] = word, head += 8;
    };
    // Room: as for the trace.
    while (head + 40 - __atomic_load_n(&page().data_tail, __ATOMIC_ACQUIRE) > kPage)
      std::this_thread::yield();
    put(type | uint64_t{8 + 8 * words.size()} << 48);
    for (const uint64_t word : words) put(word);
    __atomic_store_n(&page().data_head, head, __ATOMIC_RELEASE);
  }

  std::vector<uint64_t> control_;
  Bytes aux_;
  uint64_t written_ = 0, published_ = 0;
  std::mutex mutex_;
  std::condition_variable woken_;
  bool readable_ = false;
};

class FormSink final : public TraceSink {
 public:
  bool accept(ByteSpan bytes) override {
    accepted += bytes.size();
    if (accepted > room) return false;
    form.feed(bytes);
    return true;
  }
  void lost(uint32_t flags) override { form.note_aux_flags(flags); }
  void stands(uint64_t ip) override { form.note_position(ip); }
  void delivered(uint64_t from, uint64_t to) override { form.note_delivery(from, to); }
  NormalForm form;
  size_t accepted = 0, room = ~size_t{0};
};

CaptureOptions options(bool copier, size_t aux_bytes) {
  return {.aux = {.thread = 1,
                  .scope = TraceScope::kGuestOnly,
                  .aux_bytes = aux_bytes,
                  .ring_bytes = kPage},
          .copier = copier};
}

TEST_CASE("a copier empties a small buffer of a long epoch, and nothing is lost or doubled") {
  PlainKernel kernel;
  FormSink sink;
  auto capture = Capture::open(kernel, {.type = 8}, options(true, kPage), sink, kRunStart);
  REQUIRE(capture.ok());
  TraceBuffer buffer;
  PacketWriter writer(buffer, {.psb_period = 5000, .variation = VariationConfig::all(3)});
  for (uint64_t epoch = 0; epoch < 3; ++epoch) {
    CAPTURE(epoch);
    const std::vector<Step> run = random_run(60 + epoch, 20000);
    write_steps(run, writer);
    const Bytes trace = buffer.take();
    CHECK(trace.size() > 5 * kPage);
    for (size_t at = 0; at < trace.size(); at += 777) {
      kernel.write(ByteSpan(trace).subspan(at, std::min<size_t>(777, trace.size() - at)));
      (*capture)->pump();
    }
    (*capture)->cut(kRunEnd);
    const EpochDigest digest = sink.form.end_epoch(bounds_of(run));
    CHECK_MESSAGE(!digest.loss.any(), digest.loss.reason());
    CHECK(digest.combined() == digest_of_run(run).combined());
  }
  CHECK(kernel.opens == 1);
}

TEST_CASE("a sink without room makes its epoch unknown, and the next one begins anew") {
  PlainKernel kernel;
  FormSink sink;
  auto capture = Capture::open(kernel, {.type = 8}, options(false, 16 * kPage), sink, kRunStart);
  REQUIRE(capture.ok());
  const std::vector<Step> run = random_run(70, 1000);
  sink.room = 500;
  kernel.write(trace_of(run));
  (*capture)->cut(kRunEnd);
  CHECK(sink.form.end_epoch().loss.reason() == "there was no room for the trace");
  CHECK(kernel.opens == 2);
  sink.room = ~size_t{0};
  kernel.write(trace_of(run));
  (*capture)->cut(kRunEnd);
  const EpochDigest digest = sink.form.end_epoch(bounds_of(run));
  CHECK(!digest.loss.any());
  CHECK(digest.combined() == digest_of_run(run).combined());
}

TEST_CASE("an event delivered by software stands where the processor would have had it") {
  PlainKernel kernel;
  FormSink sink;
  auto capture = Capture::open(kernel, {.type = 8}, options(false, 16 * kPage), sink, kRunStart);
  REQUIRE(capture.ok());
  const std::vector<Step> first = random_run(71, 200), second = random_run(72, 200);
  TraceBuffer buffer;
  PacketWriter writer(buffer, {});
  writer.enable(kRunStart);
  for (const Step& step : first) write_step(step, writer);
  writer.exit(0x40'1000);
  writer.flush();
  kernel.write(buffer.take());
  (*capture)->delivered(0x40'1002, 0xffff'ffff'8180'0000);
  CHECK(kernel.enabled);
  writer.enable(0xffff'ffff'8180'0000);
  for (const Step& step : second) write_step(step, writer);
  writer.exit(kRunEnd);
  writer.flush();
  kernel.write(buffer.take());
  (*capture)->cut(kRunEnd);
  std::vector<Step> whole = first;
  whole.push_back({Step::kAsync, 0x40'1002, 0xffff'ffff'8180'0000});
  whole.insert(whole.end(), second.begin(), second.end());
  CHECK(sink.form.end_epoch(bounds_of(whole)).combined() == digest_of_run(whole).combined());
}

}  // namespace
}  // namespace us::ipt::test
