#include "ipt/capture/trace_host.h"

#include <cerrno>
#include <fstream>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace us::ipt {
namespace {

int or_errno(long result) { return result < 0 ? -errno : static_cast<int>(result); }

class RealTraceHost final : public TraceHost {
 public:
  std::optional<std::string> read_file(const std::string& path) override {
    std::ifstream in(path);
    std::string line;
    if (!in || !std::getline(in, line)) return std::nullopt;
    while (!line.empty() && static_cast<unsigned char>(line.back()) <= ' ') line.pop_back();
    return line;
  }
  int open(const perf_event_attr& attr, pid_t thread) override {
    perf_event_attr copy = attr;  // the kernel writes the size it wants into it on E2BIG
    return or_errno(::syscall(SYS_perf_event_open, &copy, thread, -1, -1, PERF_FLAG_FD_CLOEXEC));
  }
  void close(int fd) override { ::close(fd); }
  int control(int fd, unsigned long request) override { return or_errno(::ioctl(fd, request, 0)); }
  ssize_t read(int fd, void* out, size_t size) override {
    const ssize_t got = ::read(fd, out, size);
    return got < 0 ? -errno : got;
  }
  void* map(int fd, size_t bytes, uint64_t offset, int& error) override {
    void* at =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset));
    if (at != MAP_FAILED) return at;
    error = -errno;
    return nullptr;
  }
  void unmap(void* start, size_t bytes) override { ::munmap(start, bytes); }
  size_t page_bytes() override { return static_cast<size_t>(::sysconf(_SC_PAGESIZE)); }
  int wait(int fd, int timeout_ms) override {
    pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
    const int r = or_errno(::poll(&one, 1, timeout_ms));
    return r == -EINTR ? 0 : r;
  }
};

}  // namespace

std::unique_ptr<TraceHost> real_trace_host() { return std::make_unique<RealTraceHost>(); }

}  // namespace us::ipt
