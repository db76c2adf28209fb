// The seam over the kernel. Nothing here decides anything.
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

#include "hv/kvm/flexible_ioctls.h"
#include "hv/kvm/kvm_host.h"

namespace us::hv::kvm {
namespace {

static_assert(sizeof(XsaveArea) == US_KVM_XSAVE_BYTES);
// What the kernel's sigset_t is, and KVM_SET_SIGNAL_MASK insists on.
constexpr uint32_t kKernelSignalSetBytes = 8;

int or_errno(long result) { return result < 0 ? -errno : static_cast<int>(result); }

template <class Argument>
int call(int fd, unsigned long request, Argument argument) {
  return or_errno(::ioctl(fd, request, argument));
}

// A header and elements in one buffer, as the ioctls with flexible arrays want it.
template <class Element>
class Flexible {
 public:
  Flexible(size_t header_bytes, std::span<const Element> elements) : header_(header_bytes) {
    buffer_.resize(header_bytes + elements.size_bytes());
    const auto count = static_cast<uint32_t>(elements.size());
    std::memcpy(buffer_.data(), &count, sizeof count);
    if (!elements.empty())
      std::memcpy(buffer_.data() + header_bytes, elements.data(), elements.size_bytes());
  }
  uint8_t* data() { return buffer_.data(); }
  uint32_t count() const {
    uint32_t count;
    std::memcpy(&count, buffer_.data(), sizeof count);
    return count;
  }
  void copy_to(std::span<Element> out) const {
    if (!out.empty()) std::memcpy(out.data(), buffer_.data() + header_, out.size_bytes());
  }

 private:
  size_t header_;
  std::vector<uint8_t> buffer_;
};

class RealKvmHost final : public KvmHost {
 public:
  int open_device() override { return or_errno(::open("/dev/kvm", O_RDWR | O_CLOEXEC)); }
  void close(int fd) override { ::close(fd); }
  int api_version(int device) override { return call(device, KVM_GET_API_VERSION, 0L); }
  int check_extension(int fd, uint32_t cap) override {
    return call(fd, KVM_CHECK_EXTENSION, static_cast<unsigned long>(cap));
  }
  int create_vm(int device) override { return call(device, KVM_CREATE_VM, 0L); }
  int run_page_bytes(int device) override { return call(device, KVM_GET_VCPU_MMAP_SIZE, 0L); }
  int supported_cpuid(int device, std::span<kvm_cpuid_entry2> entries) override {
    Flexible<kvm_cpuid_entry2> buffer(US_KVM_CPUID_HEADER, entries);
    if (const int r = call(device, US_KVM_GET_SUPPORTED_CPUID, buffer.data()); r < 0) return r;
    buffer.copy_to(entries);
    return static_cast<int>(buffer.count());
  }

  int enable_capability(int vm, uint32_t cap, uint64_t argument) override {
    kvm_enable_cap enable{};
    enable.cap = cap;
    enable.args[0] = argument;
    return call(vm, KVM_ENABLE_CAP, &enable);
  }
  int set_memory(int vm, const kvm_userspace_memory_region& region) override {
    return call(vm, KVM_SET_USER_MEMORY_REGION, &region);
  }
  int dirty_pages(int vm, uint32_t slot, std::span<uint64_t> bitmap) override {
    kvm_dirty_log log{};
    log.slot = slot;
    log.dirty_bitmap = bitmap.data();
    return call(vm, KVM_GET_DIRTY_LOG, &log);
  }
  int set_task_state_address(int vm, uint64_t address) override {
    return call(vm, KVM_SET_TSS_ADDR, static_cast<unsigned long>(address));
  }
  int set_identity_map_address(int vm, uint64_t address) override {
    return call(vm, KVM_SET_IDENTITY_MAP_ADDR, &address);
  }
  int set_msr_filter(int vm, const kvm_msr_filter& filter) override {
    return call(vm, KVM_X86_SET_MSR_FILTER, &filter);
  }
  int create_vcpu(int vm) override { return call(vm, KVM_CREATE_VCPU, 0L); }

  kvm_run* map_run_page(int vcpu, size_t bytes) override {
    void* page = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    return page == MAP_FAILED ? nullptr : static_cast<kvm_run*>(page);
  }
  void unmap_run_page(kvm_run* page, size_t bytes) override { ::munmap(page, bytes); }
  int set_cpuid(int vcpu, std::span<const kvm_cpuid_entry2> entries) override {
    Flexible<kvm_cpuid_entry2> buffer(US_KVM_CPUID_HEADER, entries);
    return call(vcpu, US_KVM_SET_CPUID2, buffer.data());
  }
  int get_regs(int vcpu, kvm_regs& out) override { return call(vcpu, KVM_GET_REGS, &out); }
  int set_regs(int vcpu, const kvm_regs& in) override { return call(vcpu, KVM_SET_REGS, &in); }
  int get_sregs(int vcpu, kvm_sregs& out) override { return call(vcpu, KVM_GET_SREGS, &out); }
  int set_sregs(int vcpu, const kvm_sregs& in) override { return call(vcpu, KVM_SET_SREGS, &in); }
  int get_xsave(int vcpu, XsaveArea& out) override {
    return call(vcpu, US_KVM_GET_XSAVE, out.bytes);
  }
  int set_xsave(int vcpu, const XsaveArea& in) override {
    return call(vcpu, US_KVM_SET_XSAVE, in.bytes);
  }
  int get_xcrs(int vcpu, kvm_xcrs& out) override { return call(vcpu, KVM_GET_XCRS, &out); }
  int set_xcrs(int vcpu, const kvm_xcrs& in) override { return call(vcpu, KVM_SET_XCRS, &in); }
  int get_msrs(int vcpu, std::span<kvm_msr_entry> entries) override {
    Flexible<kvm_msr_entry> buffer(US_KVM_MSRS_HEADER, entries);
    const int read = call(vcpu, US_KVM_GET_MSRS, buffer.data());
    if (read >= 0) buffer.copy_to(entries);
    return read;
  }
  int set_msrs(int vcpu, std::span<const kvm_msr_entry> entries) override {
    Flexible<kvm_msr_entry> buffer(US_KVM_MSRS_HEADER, entries);
    return call(vcpu, US_KVM_SET_MSRS, buffer.data());
  }
  int get_events(int vcpu, kvm_vcpu_events& out) override {
    return call(vcpu, KVM_GET_VCPU_EVENTS, &out);
  }
  int set_events(int vcpu, const kvm_vcpu_events& in) override {
    return call(vcpu, KVM_SET_VCPU_EVENTS, &in);
  }
  int get_debug_registers(int vcpu, kvm_debugregs& out) override {
    return call(vcpu, KVM_GET_DEBUGREGS, &out);
  }
  int set_debug_registers(int vcpu, const kvm_debugregs& in) override {
    return call(vcpu, KVM_SET_DEBUGREGS, &in);
  }
  int set_guest_debug(int vcpu, const kvm_guest_debug& in) override {
    return call(vcpu, KVM_SET_GUEST_DEBUG, &in);
  }
  int unblock_in_run(int vcpu, std::span<const int> signals) override {
    sigset_t mask;
    if (::pthread_sigmask(SIG_BLOCK, nullptr, &mask) != 0) return -EINVAL;
    for (const int signal : signals) ::sigdelset(&mask, signal);
    uint8_t buffer[US_KVM_SIGNAL_MASK_HEADER + kKernelSignalSetBytes];
    std::memcpy(buffer, &kKernelSignalSetBytes, sizeof kKernelSignalSetBytes);
    std::memcpy(buffer + US_KVM_SIGNAL_MASK_HEADER, &mask, kKernelSignalSetBytes);
    return call(vcpu, US_KVM_SET_SIGNAL_MASK, buffer);
  }
  int run(int vcpu) override { return call(vcpu, KVM_RUN, 0L); }

  pid_t this_thread() override { return static_cast<pid_t>(::syscall(SYS_gettid)); }
  void block_signals(std::span<const int> signals) override {
    const sigset_t set = set_of(signals);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  }
  bool take_signal(int signal) override {
    const sigset_t set = set_of({&signal, 1});
    constexpr timespec kNoWait{};
    int taken;
    do {
      taken = ::sigtimedwait(&set, nullptr, &kNoWait);
    } while (taken < 0 && errno == EINTR);
    return taken == signal;
  }
  void send_signal(pid_t thread, int signal) override {
    ::syscall(SYS_tgkill, ::getpid(), thread, signal);
  }
  int pin_memory(void* start, size_t bytes) override {
    ::madvise(start, bytes, MADV_UNMERGEABLE);  // EINVAL where the kernel merges nothing anyway
    return or_errno(::mlock(start, bytes));
  }
  int pin_thread(unsigned cpu) override {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (cpu >= CPU_SETSIZE) return -EINVAL;
    CPU_SET(cpu, &set);
    return or_errno(::sched_setaffinity(0, sizeof set, &set));
  }

 private:
  static sigset_t set_of(std::span<const int> signals) {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int signal : signals) ::sigaddset(&set, signal);
    return set;
  }
};

}  // namespace

std::unique_ptr<KvmHost> real_kvm_host() { return std::make_unique<RealKvmHost>(); }

}  // namespace us::hv::kvm
