#include "hv/kvm/host_system.h"

#include <cerrno>
#include <cpuid.h>
#include <fcntl.h>
#include <fstream>
#include <sys/utsname.h>
#include <unistd.h>

namespace us::hv::kvm {
namespace {

class RealHostSystem final : public HostSystem {
 public:
  std::optional<std::string> read_file(const std::string& path) override {
    constexpr size_t kMost = 1 << 16;
    std::ifstream in(path, std::ios::binary);
    if (!in) return std::nullopt;
    std::string text(kMost, '\0');
    in.read(text.data(), static_cast<std::streamsize>(text.size()));
    if (in.bad()) return std::nullopt;
    text.resize(static_cast<size_t>(in.gcount()));
    while (!text.empty() && static_cast<unsigned char>(text.back()) <= ' ') text.pop_back();
    return text;
  }
  std::array<uint32_t, 4> cpuid(uint32_t leaf, uint32_t subleaf) override {
    std::array<uint32_t, 4> out{};
    if (leaf > __get_cpuid_max(leaf & 0x8000'0000, nullptr)) return out;
    __cpuid_count(leaf, subleaf, out[0], out[1], out[2], out[3]);
    return out;
  }
  pmu::CpuId cpu() override { return pmu::this_cpu(); }
  std::optional<uint64_t> read_msr(uint32_t index) override {
    const int fd = ::open("/dev/cpu/0/msr", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return std::nullopt;
    uint64_t value = 0;
    const ssize_t got = ::pread(fd, &value, sizeof value, static_cast<off_t>(index));
    ::close(fd);
    return got == sizeof value ? std::optional(value) : std::nullopt;
  }
  std::string kernel_release() override {
    utsname name{};
    return ::uname(&name) == 0 ? name.release : "";
  }
};

}  // namespace

std::unique_ptr<HostSystem> real_host_system() { return std::make_unique<RealHostSystem>(); }

}  // namespace us::hv::kvm
