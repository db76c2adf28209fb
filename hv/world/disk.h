// A raw disk image, read and written on threads of its own. Live only: a replayed machine has its
// disk data from the log.
//
// Order: requests that overlap (and are not both reads) run in the order submitted; a flush runs
// after everything submitted before it; everything else may run in any order. The completion of a
// request is reported before anything that waited for it runs.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "hv/core/input_output.h"
#include "hv/world/thread_support.h"

namespace us::hv {

constexpr uint64_t kSectorSize = 512;
// Longer requests fail: no guest of ours has so much memory in one request.
constexpr uint64_t kDiskRequestMax = 64ull << 20;

struct DiskImage {
  std::string path = {};
  bool read_only = false;
  // Completions of reads say where in the image their data is, as long as this disk's user has not
  // written there: for logs that leave disk data in the image.
  bool tell_offsets = false;
};

class DiskBackend {
 public:
  // Called on a worker's thread, once a request.
  using DoneHandler = std::function<void(DiskDoneInput)>;

  // Opens a regular file or block device. Unless read-only it is locked against other users for as
  // long as this object lives. Errors: DISK-001 cannot be opened, DISK-002 bad size, DISK-003 in
  // use.
  static Result<std::unique_ptr<DiskBackend>> open(const DiskImage& config, DoneHandler done);
  ~DiskBackend();
  DiskBackend(const DiskBackend&) = delete;
  DiskBackend& operator=(const DiskBackend&) = delete;

  uint64_t size() const { return size_; }
  bool read_only() const { return read_only_; }

  // Never blocks on I/O. Requests outside the disk, too long or writing to a read-only disk
  // complete with ok = false.
  void submit(DiskRequest request);

  // Waits until every submitted request is done and reported.
  void drain();
  // Finishes what was submitted, then ends the threads; later requests are dropped silently.
  void stop();

 private:
  static constexpr unsigned kWorkers = 2;
  struct Pending {
    DiskRequest request;
    bool running = false;
  };
  using Queue = std::list<Pending>;  // in submission order; done ones are taken out

  DiskBackend(Fd fd, uint64_t size, const DiskImage& config, DoneHandler done);
  void work();
  Queue::iterator next_runnable();
  DiskDoneInput perform(DiskRequest& request);
  void read(const DiskRequest& request, DiskDoneInput& done);
  void note_change(const DiskRequest& request);
  bool unchanged(uint64_t offset, uint64_t length);
  bool acceptable(const DiskRequest& request) const;

  const Fd fd_;
  const uint64_t size_;
  const bool read_only_;
  const bool tell_offsets_;
  const DoneHandler done_;

  std::mutex mutex_;
  std::condition_variable changed_;
  Queue queue_;           // under mutex_
  bool stopped_ = false;  // under mutex_
  // Ranges written so far, begin to end, neither touching nor overlapping; under mutex_.
  std::map<uint64_t, uint64_t> changed_ranges_;
  std::vector<std::thread> workers_;
};

}  // namespace us::hv
