#include "hv/world/disk.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

namespace us::hv {

namespace {

UserError disk_error(const char* id, ExitCode code, std::string what, std::string seen,
                     std::string needed, std::string mend) {
  return UserError{id, code, std::move(what), std::move(seen), std::move(needed), std::move(mend)};
}

UserError cannot_open(const std::string& path, std::string seen) {
  return disk_error("DISK-001", ExitCode::kUsage, fmt::format("cannot open the disk {}", path),
                    std::move(seen), "a raw disk image or block device",
                    "make one, e.g. with `truncate -s 1G` and mke2fs, or correct the path");
}

// Size of a regular file or block device in bytes, or -1 with errno.
int64_t size_of(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return -1;
  if (S_ISREG(status.st_mode)) return status.st_size;
  uint64_t size = 0;
  if (S_ISBLK(status.st_mode) && ::ioctl(fd, BLKGETSIZE64, &size) == 0)
    return static_cast<int64_t>(size);
  errno = EINVAL;
  return -1;
}

// A lock that belongs to the open file, so that it goes with it and forks do not drop it.
bool lock_whole(int fd) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return ::fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

bool read_all(int fd, uint8_t* out, uint64_t size, uint64_t offset) {
  while (size != 0) {
    const ssize_t n = ::pread(fd, out, size, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    out += n;
    size -= static_cast<uint64_t>(n);
    offset += static_cast<uint64_t>(n);
  }
  return true;
}

bool write_all(int fd, const uint8_t* in, uint64_t size, uint64_t offset) {
  while (size != 0) {
    const ssize_t n = ::pwrite(fd, in, size, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    in += n;
    size -= static_cast<uint64_t>(n);
    offset += static_cast<uint64_t>(n);
  }
  return true;
}

bool punch_hole(int fd, uint64_t offset, uint64_t size) {
  return ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                     static_cast<off_t>(size)) == 0;
}

bool write_zeroes(int fd, uint64_t offset, uint64_t size) {
  if (punch_hole(fd, offset, size)) return true;
  const Bytes zeros(std::min<uint64_t>(size, 1 << 20));
  while (size != 0) {
    const uint64_t piece = std::min<uint64_t>(size, zeros.size());
    if (!write_all(fd, zeros.data(), piece, offset)) return false;
    offset += piece;
    size -= piece;
  }
  return true;
}

// Whether `later` must wait until `earlier` is done.
bool must_wait(const DiskRequest& later, const DiskRequest& earlier) {
  if (later.op == DiskOp::kFlush) return true;
  if (earlier.op == DiskOp::kFlush) return false;
  if (later.op == DiskOp::kRead && earlier.op == DiskOp::kRead) return false;
  return later.offset < earlier.offset + earlier.length &&
         earlier.offset < later.offset + later.length;
}

constexpr size_t kChangedRangesMax = 100'000;

bool bounded_by_data(DiskOp op) { return op == DiskOp::kRead || op == DiskOp::kWrite; }

}  // namespace

Result<std::unique_ptr<DiskBackend>> DiskBackend::open(const DiskImage& config, DoneHandler done) {
  const int mode = config.read_only ? O_RDONLY : O_RDWR;
  Fd fd(::open(config.path.c_str(), mode | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return cannot_open(config.path, std::strerror(errno));
  const int64_t size = size_of(fd.get());
  if (size < 0)
    return cannot_open(config.path,
                       errno == EINVAL ? "neither file nor block device" : std::strerror(errno));
  if (size == 0 || static_cast<uint64_t>(size) % kSectorSize != 0)
    return disk_error("DISK-002", ExitCode::kUsage,
                      fmt::format("the disk {} has a size that no disk has", config.path),
                      fmt::format("{} bytes", size), "whole sectors of 512 bytes, at least one",
                      fmt::format("truncate -s %512 {}", config.path));
  if (!config.read_only && !lock_whole(fd.get()))
    return disk_error("DISK-003", ExitCode::kHostCannot,
                      fmt::format("the disk {} is in use", config.path), std::strerror(errno),
                      "a disk that no other machine writes to",
                      "stop the other machine, or use a copy");
  return std::unique_ptr<DiskBackend>(
      new DiskBackend(std::move(fd), static_cast<uint64_t>(size), config, std::move(done)));
}

DiskBackend::DiskBackend(Fd fd, uint64_t size, const DiskImage& config, DoneHandler done)
    : fd_(std::move(fd)),
      size_(size),
      read_only_(config.read_only),
      tell_offsets_(config.tell_offsets),
      done_(std::move(done)) {
  for (unsigned i = 0; i < kWorkers; ++i)
    workers_.emplace_back([this] {
      begin_thread("us-disk");
      work();
    });
}

DiskBackend::~DiskBackend() { stop(); }

void DiskBackend::submit(DiskRequest request) {
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return;
    queue_.push_back({std::move(request)});
  }
  changed_.notify_all();
}

void DiskBackend::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return queue_.empty(); });
}

void DiskBackend::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  for (std::thread& worker : workers_)
    if (worker.joinable()) worker.join();
}

DiskBackend::Queue::iterator DiskBackend::next_runnable() {
  for (auto candidate = queue_.begin(); candidate != queue_.end(); ++candidate) {
    if (candidate->running) continue;
    const bool blocked = std::any_of(queue_.begin(), candidate, [&](const Pending& earlier) {
      return must_wait(candidate->request, earlier.request);
    });
    if (!blocked) return candidate;
  }
  return queue_.end();
}

void DiskBackend::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto next = next_runnable();
    if (next == queue_.end()) {
      if (stopped_ && queue_.empty()) return;
      changed_.wait(lock);
      continue;
    }
    next->running = true;
    lock.unlock();
    done_(perform(next->request));
    lock.lock();
    queue_.erase(next);
    changed_.notify_all();
  }
}

bool DiskBackend::acceptable(const DiskRequest& request) const {
  if (request.op != DiskOp::kRead && request.op != DiskOp::kFlush && read_only_) return false;
  if (request.op == DiskOp::kFlush) return true;
  if (request.offset > size_ || request.length > size_ - request.offset) return false;
  if (bounded_by_data(request.op) && request.length > kDiskRequestMax) return false;
  return request.op != DiskOp::kWrite || request.length == request.data.size();
}

// A range may be noted before it is written: a read of it then says its data itself.
void DiskBackend::note_change(const DiskRequest& request) {
  if (!tell_offsets_ || request.length == 0) return;
  const std::lock_guard lock(mutex_);
  uint64_t begin = request.offset, end = request.offset + request.length;
  auto next = changed_ranges_.upper_bound(begin);
  if (next != changed_ranges_.begin() && std::prev(next)->second >= begin) --next;
  while (next != changed_ranges_.end() && next->first <= end) {
    begin = std::min(begin, next->first);
    end = std::max(end, next->second);
    next = changed_ranges_.erase(next);
  }
  changed_ranges_.emplace(begin, end);
  if (changed_ranges_.size() <= kChangedRangesMax) return;
  // Scattered writes without end: what lies between counts as written, too.
  const uint64_t first = changed_ranges_.begin()->first, last = changed_ranges_.rbegin()->second;
  changed_ranges_.clear();
  changed_ranges_.emplace(first, last);
}

bool DiskBackend::unchanged(uint64_t offset, uint64_t length) {
  const std::lock_guard lock(mutex_);
  auto next = changed_ranges_.lower_bound(offset + length);
  return next == changed_ranges_.begin() || std::prev(next)->second <= offset;
}

void DiskBackend::read(const DiskRequest& request, DiskDoneInput& done) {
  done.data.resize(request.length);
  done.ok = read_all(fd_.get(), done.data.data(), request.length, request.offset);
  if (!done.ok) done.data.clear();
  if (done.ok && tell_offsets_ && unchanged(request.offset, request.length))
    done.image_offset = request.offset;
}

DiskDoneInput DiskBackend::perform(DiskRequest& request) {
  DiskDoneInput done{.device = request.device, .request = request.request, .ok = false, .data = {}};
  if (!acceptable(request)) return done;
  const int fd = fd_.get();
  if (request.op != DiskOp::kRead && request.op != DiskOp::kFlush) note_change(request);
  switch (request.op) {
    case DiskOp::kRead: read(request, done); break;
    case DiskOp::kWrite:
      done.ok = write_all(fd, request.data.data(), request.length, request.offset);
      break;
    case DiskOp::kFlush: done.ok = read_only_ || ::fdatasync(fd) == 0; break;
    case DiskOp::kDiscard:
      // A hint: where the host's file system cannot, the data stays. virtio 1.2 5.2.6.
      if (request.length != 0) punch_hole(fd, request.offset, request.length);
      done.ok = true;
      break;
    case DiskOp::kWriteZeroes:
      done.ok = request.length == 0 || write_zeroes(fd, request.offset, request.length);
      break;
  }
  return done;
}

}  // namespace us::hv
