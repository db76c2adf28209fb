// A router on a VDE switch: the host's user-mode network (libslirp: DHCP, DNS, port forwarding)
// with the switch where a guest would be. It outlives both sides of a pair, and so do the
// connections that it holds. Debian's slirpvde does the same, but its timers run only when
// something arrives: a segment lost in a failover is never sent again.
//   router SWITCH HOST_PORT GUEST_ADDRESS GUEST_PORT
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <unistd.h>

#include "hv/world/net.h"

namespace {

std::unique_ptr<us::hv::NetBackend> open_or_die(const std::string& text,
                                                us::hv::FrameHandler handler) {
  auto spec = us::hv::parse_net_spec(text);
  if (spec.ok()) {
    auto net = us::hv::open_net(*spec, std::move(handler));
    if (net.ok()) return std::move(net).value();
    std::fprintf(stderr, "%s\n", net.error().text().c_str());
  } else {
    std::fprintf(stderr, "%s\n", spec.error().text().c_str());
  }
  std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const std::string host =
      std::string("slirp:hostfwd=tcp:127.0.0.1:") + argv[2] + "-" + argv[3] + ":" + argv[4];
  us::hv::NetBackend* slirp_now = nullptr;
  std::atomic<us::hv::NetBackend*> vde_now{nullptr};
  // Each hands its frames to the other, on its own thread; nothing arrives from the switch before
  // both are there.
  auto slirp = open_or_die(host, [&](us::Bytes frame) {
    if (us::hv::NetBackend* vde = vde_now) vde->send(frame);
  });
  slirp_now = slirp.get();
  auto vde =
      open_or_die(std::string("vde:") + argv[1], [&](us::Bytes frame) { slirp_now->send(frame); });
  vde_now = vde.get();
  std::printf("router: 127.0.0.1:%s leads to %s:%s\n", argv[2], argv[3], argv[4]);
  std::fflush(stdout);
  pause();
}
