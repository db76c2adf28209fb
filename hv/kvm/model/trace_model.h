// Intel PT by perf, over a modelled guest: the processor's trace of the guest (by the packet writer
// that the software processor traces with), with the host around it where the event asks for that,
// through regions of an AUX buffer that fills, to records that get lost. It answers as perf and
// intel_pt do: aux_head moves only at stops, an event that goes on makes no PSB, a full buffer
// stops the event for good.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "hv/cpu/cpu.h"
#include "ipt/capture/trace_host.h"
#include "ipt/packet_writer.h"
#include "ipt/packets.h"
#include "pmu/random.h"

namespace us::hv::kvm::model {

struct TraceModelOptions {
  uint64_t seed = 1;
  bool there = true;  // the host has intel_pt
  std::map<std::string, std::string> files =
      {};                             // of its folder in /sys: in place of the usual ones
  int open_error = 0;                 // of every open: EBUSY, ...
  int ring_error = 0, aux_error = 0;  // of the mappings
  uint64_t psb_period = 2048;         // whatever the event asks for
  bool forgets_last_ip = false;  // the first address after a pause is compressed against nothing
  uint64_t publish_one_in =
      0;  // VM exits that the trace is stopped at and goes on, as if scheduled
  // What two processors may do differently.
  ipt::VariationConfig variation = {};
};

class TraceModel final : public ipt::TraceHost, private ipt::TraceSink {
 public:
  explicit TraceModel(const TraceModelOptions& options);
  ~TraceModel() override;

  // --- The processor's side: the guest is entered, or left. No effect when it is, or is not, in.
  void enter(Cpu& c);
  void leave(Cpu& c);

  // --- Mischief, at the next chance.
  std::function<void()> at_next_enable;  // for mischief in the stretch that comes
  void fill(size_t left);                // with PADs, to so many bytes
  void overflow() { overflow_ = true; }  // of the processor's own buffer, while the guest runs
  void flag_next(uint64_t flags) { flags_ |= flags; }  // in the next AUX record
  void lose_records(uint64_t n) { lost_ = n; }         // a LOST record, and nothing else of then
  void throttle() { throttle_ = true; }
  void garble_record() { garble_ = true; }  // a record of an impossible size
  void skip_head() { skip_head_ = true; }   // aux_head further than the buffer is long
  void damage() { damage_ = true; }         // bytes that are no packet, while the guest runs
  void take_hardware();                     // the pinned event loses it, for good

  std::vector<perf_event_attr> opened;
  uint64_t truncations = 0, host_stretches = 0, pauses = 0;
  int open_files() const { return static_cast<int>(events_.size()); }
  int mappings() const { return mappings_; }

  // --- ipt::TraceHost
  std::optional<std::string> read_file(const std::string& path) override;
  int open(const perf_event_attr& attr, pid_t thread) override;
  void close(int fd) override;
  int control(int fd, unsigned long request) override;
  ssize_t read(int fd, void* out, size_t size) override;
  void* map(int fd, size_t bytes, uint64_t offset, int& error) override;
  void unmap(void* start, size_t bytes) override;
  size_t page_bytes() override { return 4096; }
  int wait(int fd, int timeout_ms) override;

 private:
  struct Event {
    perf_event_attr attr{};
    bool enabled = false, started = false, error = false;
    std::vector<uint64_t> control;  // the control page and the ring behind it
    // As large as a host's, and mostly never touched: pages come as they are written.
    std::unique_ptr<uint8_t, decltype(&std::free)> aux{nullptr, &std::free};
    size_t aux_bytes = 0;
    uint64_t written = 0;    // by the processor, since the event was made
    uint64_t published = 0;  // aux_head
    bool full = false;
    perf_event_mmap_page& page() {
      return *reinterpret_cast<perf_event_mmap_page*>(control.data());
    }
  };

  bool accept(ByteSpan bytes) override;  // the writer's packets
  void guest_packet(const ipt::Packet& packet, ByteSpan bytes);
  void enter_from_host(uint64_t ip);
  void host_stretch(unsigned packets);
  void host_psb();
  void start_in_host();
  void stop_in_host();
  void put(ByteSpan bytes);
  void put_ip(uint8_t op, uint64_t ip);
  void put_pip(uint64_t cr3, bool non_root);
  void put_mode(uint8_t mode);
  void publish(Event& e);
  void record(Event& e, uint32_t type, std::initializer_list<uint64_t> words);
  void forget_last_ip() {
    if (options_.forgets_last_ip) last_ip_ = 0;
  }
  uint64_t host_ip() { return 0xffff'ffff'8100'0000 + random_.next() % 0x10'0000; }

  TraceModelOptions options_;
  pmu::Random random_;
  std::unique_ptr<ipt::PacketWriter> writer_;
  std::map<int, Event> events_;
  Event* current_ = nullptr;  // the one that is enabled
  int next_fd_ = 300;
  int mappings_ = 0;
  bool inside_ = false;
  bool guest_only_ = false;
  uint64_t guest_cr3_ = 0;
  // Of the packets as they leave the processor.
  uint64_t last_in_ = 0;  // of the writer's
  uint64_t last_ip_ = 0;
  bool in_psb_ = false;
  bool writer_in_guest_ = false;
  uint8_t guest_mode_ = ipt::kExecLong, mode_ = ipt::kExecLong;
  bool overflow_ = false, throttle_ = false, garble_ = false, skip_head_ = false, damage_ = false;
  bool dropping_ = false;  // after an overflow, until the next FUP
  uint64_t flags_ = 0, lost_ = 0;

  std::mutex wake_;
  std::condition_variable woken_;
  bool readable_ = false;
};

}  // namespace us::hv::kvm::model
