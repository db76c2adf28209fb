#include "pmu/perf_host.h"

#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace us::pmu {
namespace {

int or_errno(long result) { return result < 0 ? -errno : static_cast<int>(result); }

class RealPerfHost final : public PerfHost {
 public:
  int open(const perf_event_attr& attr, pid_t thread) override {
    perf_event_attr copy = attr;  // the kernel writes the size it wants into it on E2BIG
    return or_errno(::syscall(SYS_perf_event_open, &copy, thread, -1, -1, PERF_FLAG_FD_CLOEXEC));
  }
  void close(int fd) override { ::close(fd); }
  int control(int fd, unsigned long request, uint64_t argument) override {
    if (request == PERF_EVENT_IOC_PERIOD) return or_errno(::ioctl(fd, request, &argument));
    return or_errno(::ioctl(fd, request, argument));
  }
  ssize_t read(int fd, void* out, size_t size) override {
    const ssize_t got = ::read(fd, out, size);
    return got < 0 ? -errno : got;
  }
  int signal_on_overflow(int fd, int signal, pid_t thread) override {
    const f_owner_ex owner{.type = F_OWNER_TID, .pid = thread};
    if (const int r = or_errno(::fcntl(fd, F_SETOWN_EX, &owner)); r < 0) return r;
    if (const int r = or_errno(::fcntl(fd, F_SETSIG, signal)); r < 0) return r;
    return or_errno(::fcntl(fd, F_SETFL, O_ASYNC));
  }
  const perf_event_mmap_page* map(int fd) override {
    void* page = ::mmap(nullptr, page_bytes(), PROT_READ, MAP_SHARED, fd, 0);
    return page == MAP_FAILED ? nullptr : static_cast<const perf_event_mmap_page*>(page);
  }
  void unmap(const perf_event_mmap_page* page) override {
    ::munmap(const_cast<perf_event_mmap_page*>(page), page_bytes());
  }
  uint64_t rdpmc(uint32_t index) override {
    uint32_t low = 0, high = 0;
    asm volatile("rdpmc" : "=a"(low), "=d"(high) : "c"(index));
    return uint64_t{high} << 32 | low;
  }

 private:
  static size_t page_bytes() { return static_cast<size_t>(::sysconf(_SC_PAGESIZE)); }
};

}  // namespace

std::unique_ptr<PerfHost> real_perf_host() { return std::make_unique<RealPerfHost>(); }

}  // namespace us::pmu
