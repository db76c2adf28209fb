// A port of a VDE switch, by libvdeplug.
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>

// The header lacks the C++ guard that its functions need.
extern "C" {
#include <libvdeplug.h>
}

#include "hv/world/polled_net.h"

namespace us::hv {

namespace {

class VdeNet final : public PolledNet {
 public:
  VdeNet(VDECONN* connection, FrameHandler handler)
      : PolledNet(std::move(handler)), connection_(connection) {
    // The library drops MSG_DONTWAIT on the way to some transports.
    const int fd = vde_datafd(connection_);
    ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
    start("us-vde", fd);
  }
  ~VdeNet() override {
    stop();
    vde_close(connection_);
  }

 protected:
  ssize_t read_frame(uint8_t* buffer, size_t size) override {
    return vde_recv(connection_, buffer, size, MSG_DONTWAIT);
  }
  ssize_t write_frame(const uint8_t* frame, size_t size) override {
    return vde_send(connection_, frame, size, MSG_DONTWAIT);
  }

 private:
  VDECONN* connection_;
};

}  // namespace

Result<std::unique_ptr<NetBackend>> open_vde(const NetSpec& spec, FrameHandler handler) {
  std::string url = spec.target;
  std::string description = "understudy";
  errno = 0;
  VDECONN* connection = vde_open(url.data(), description.data(), nullptr);
  if (connection == nullptr)
    return UserError{.id = "NET-003",
                     .exit_code = ExitCode::kHostCannot,
                     .what = fmt::format("cannot connect to the VDE switch {}", spec.target),
                     .seen = errno != 0 ? std::strerror(errno) : "libvdeplug refused",
                     .needed = "the socket folder of a running vde_switch",
                     .mend = fmt::format("vde_switch -d -s {}", spec.target)};
  return std::unique_ptr<NetBackend>(std::make_unique<VdeNet>(connection, std::move(handler)));
}

}  // namespace us::hv
