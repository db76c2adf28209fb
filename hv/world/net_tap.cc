// A TAP interface of the host's (Linux Documentation/networking/tuntap.rst).
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include "hv/world/polled_net.h"

namespace us::hv {

namespace {

class TapNet final : public PolledNet {
 public:
  TapNet(Fd fd, FrameHandler handler) : PolledNet(std::move(handler)), fd_(std::move(fd)) {
    start("us-tap", fd_.get());
  }
  ~TapNet() override { stop(); }

 protected:
  ssize_t read_frame(uint8_t* buffer, size_t size) override {
    return ::read(fd_.get(), buffer, size);
  }
  ssize_t write_frame(const uint8_t* frame, size_t size) override {
    return ::write(fd_.get(), frame, size);
  }

 private:
  Fd fd_;
};

UserError cannot_open(const std::string& name, const std::string& seen, ExitCode code) {
  return UserError{
      .id = "NET-003",
      .exit_code = code,
      .what = fmt::format("cannot open the TAP interface {}", name),
      .seen = seen,
      .needed = "an interface this user may open, or CAP_NET_ADMIN",
      .mend = fmt::format("ip tuntap add {} mode tap user $USER && ip link set {} up", name, name)};
}

}  // namespace

Result<std::unique_ptr<NetBackend>> open_tap(const NetSpec& spec, FrameHandler handler) {
  if (spec.target.size() >= IFNAMSIZ || spec.target.find('/') != std::string::npos)
    return cannot_open(spec.target, fmt::format("a name of {} bytes", spec.target.size()),
                       ExitCode::kUsage);
  Fd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid())
    return cannot_open(spec.target, fmt::format("/dev/net/tun: {}", std::strerror(errno)),
                       ExitCode::kHostCannot);
  ifreq request{};
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  std::memcpy(request.ifr_name, spec.target.c_str(), spec.target.size());
  if (::ioctl(fd.get(), TUNSETIFF, &request) < 0)
    return cannot_open(spec.target, std::strerror(errno), ExitCode::kHostCannot);
  return std::unique_ptr<NetBackend>(std::make_unique<TapNet>(std::move(fd), std::move(handler)));
}

}  // namespace us::hv
