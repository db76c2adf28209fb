#include "hv/world/net.h"

#include <arpa/inet.h>
#include <cstdio>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>

#include "tests/unit/world/frames.h"
#include "tests/unit/world/support.h"

using namespace us;
using namespace us::hv;
using namespace us::hv::testing;

namespace {

constexpr uint32_t kGateway = 0x0a000202;  // 10.0.2.2
constexpr uint32_t kGuest = 0x0a00020f;    // 10.0.2.15

std::string spec_outcome(const std::string& text) { return outcome(parse_net_spec(text)); }

struct OpenNet {
  Mailbox<Bytes> frames;
  std::unique_ptr<NetBackend> net;

  explicit OpenNet(const std::string& text) {
    const auto spec = parse_net_spec(text);
    REQUIRE(hv::testing::outcome(spec) == "ok");
    auto opened = open_net(*spec, [this](Bytes f) { frames.put(std::move(f)); });
    REQUIRE(hv::testing::outcome(opened) == "ok");
    net = std::move(opened).value();
  }
};

// A UDP socket on the host's loopback, and its port.
struct HostSocket {
  int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  uint16_t port = 0;
  HostSocket() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    US_CHECK(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    socklen_t size = sizeof address;
    US_CHECK(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port = ntohs(address.sin_port);
  }
  ~HostSocket() { ::close(fd); }
};

}  // namespace

TEST_CASE("every documented network form is understood") {
  CHECK(parse_net_spec("none")->kind == NetKind::kNone);
  CHECK(parse_net_spec("slirp")->kind == NetKind::kSlirp);
  CHECK(parse_net_spec("vde:/tmp/sw")->target == "/tmp/sw");
  CHECK(parse_net_spec("vde:vde:///tmp/sw")->target == "vde:///tmp/sw");
  CHECK(parse_net_spec("tap:ft0")->target == "ft0");
  const auto one = parse_net_spec("slirp:hostfwd=tcp:127.0.0.1:8080-:80");
  REQUIRE(outcome(one) == "ok");
  REQUIRE(one->forwards.size() == 1);
  CHECK(ntohl(one->forwards[0].host_address.s_addr) == INADDR_LOOPBACK);
  CHECK(one->forwards[0].host_port == 8080);
  CHECK(one->forwards[0].guest_address.s_addr == 0);
  CHECK(one->forwards[0].guest_port == 80);
  const auto two = parse_net_spec("slirp:hostfwd=tcp::1-10.0.2.15:2,hostfwd=udp:127.0.0.1:3-:4");
  REQUIRE(outcome(two) == "ok");
  REQUIRE(two->forwards.size() == 2);
  CHECK(ntohl(two->forwards[0].guest_address.s_addr) == kGuest);
  CHECK(two->forwards[1].udp);
}

TEST_CASE("network forms that are wrong are refused, each with its id") {
  for (const char* text : {"", "bridge", "slirps", "none:x", "user"})
    CHECK_MESSAGE(spec_outcome(text) == "NET-001", text);
  for (const char* text :
       {"slirp:", "slirp:x", "slirp:hostfwd=", "slirp:hostfwd=tcp:127.0.0.1:8080",
        "slirp:hostfwd=sctp:127.0.0.1:1-:2", "slirp:hostfwd=tcp:localhost:1-:2",
        "slirp:hostfwd=tcp:127.0.0.1:0-:2", "slirp:hostfwd=tcp:127.0.0.1:65536-:2",
        "slirp:hostfwd=tcp:127.0.0.1:1-:2x", "slirp:hostfwd=tcp:127.0.0.1:1-300.0.0.1:2",
        "vde:", "tap:"})
    CHECK_MESSAGE(spec_outcome(text) == "NET-002", text);
}

TEST_CASE("backends that cannot be opened say so: no switch, no interface, port in use") {
  const auto open = [](const std::string& text) {
    return outcome(open_net(*parse_net_spec(text), [](Bytes) {}));
  };
#ifndef US_SANITIZED  // libvdeplug loads its transports in a way that sanitizers refuse
                      // (RTLD_DEEPBIND)
  CHECK(open("vde:/nonexistent/switch") == "NET-003");
#endif
  CHECK(open("tap:a-name-far-too-long-for-an-interface") == "NET-003");
  CHECK(open("tap:../tun") == "NET-003");
  const HostSocket taken;
  CHECK(open(fmt::format("slirp:hostfwd=udp:127.0.0.1:{}-:7", taken.port)) == "NET-004");
}

TEST_CASE("the none backend swallows frames and delivers none") {
  OpenNet none("none");
  none.net->send(arp_request(kGuest, kGateway));
  none.net->stop();
  CHECK(none.frames.size() == 0);
}

TEST_CASE("slirp answers an ARP request for its gateway and a DHCP DISCOVER with 10.0.2.15") {
  OpenNet slirp("slirp");
  slirp.net->send(arp_request(0, kGateway));
  CHECK(slirp.frames.take([](const Bytes& f) { return is_arp_reply_from(f, kGateway); }));
  slirp.net->send(dhcp_discover(0x1234abcd));
  const auto offer = slirp.frames.take(
      [](const Bytes& f) { return be16(f, 12) == kEtherIpv4 && be16(f, 36) == 68; });
  REQUIRE(offer.has_value());
  CHECK(be32(*offer, 46) == 0x1234abcd);
  CHECK(be32(*offer, 58) == kGuest);  // yiaddr
}

TEST_CASE("slirp carries UDP to the host's loopback by the gateway, and the answer back") {
  OpenNet slirp("slirp");
  const HostSocket host;
  slirp.net->send(arp_request(kGuest, kGateway));
  const auto reply =
      slirp.frames.take([](const Bytes& f) { return is_arp_reply_from(f, kGateway); });
  REQUIRE(reply.has_value());
  Mac gateway{};
  std::copy_n(reply->begin() + 6, 6, gateway.begin());
  slirp.net->send(udp_frame(gateway, kGuest, 5000, kGateway, host.port, {'p', 'i', 'n', 'g'}));
  char text[16] = "";
  sockaddr_in from{};
  socklen_t size = sizeof from;
  REQUIRE(::recvfrom(host.fd, text, sizeof text, 0, reinterpret_cast<sockaddr*>(&from), &size) ==
          4);
  CHECK(std::string(text, 4) == "ping");
  REQUIRE(::sendto(host.fd, "pong", 4, 0, reinterpret_cast<sockaddr*>(&from), size) == 4);
  const auto answer = slirp.frames.take(
      [](const Bytes& f) { return be16(f, 12) == kEtherIpv4 && be16(f, 36) == 5000; });
  REQUIRE(answer.has_value());
  CHECK(std::string(answer->begin() + 42, answer->begin() + 46) == "pong");
}

TEST_CASE("slirp forwards a host port to the guest's first address") {
  uint16_t port = 0;
  { port = HostSocket().port; }
  OpenNet slirp(fmt::format("slirp:hostfwd=udp:127.0.0.1:{}-:7", port));
  slirp.net->send(arp_request(kGuest, kGateway));  // so that it knows who 10.0.2.15 is
  REQUIRE(slirp.frames.take([](const Bytes& f) { return is_arp_reply_from(f, kGateway); }));
  const HostSocket client;
  sockaddr_in target{};
  target.sin_family = AF_INET;
  target.sin_port = htons(port);
  target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::sendto(client.fd, "hi", 2, 0, reinterpret_cast<sockaddr*>(&target), sizeof target) ==
          2);
  const auto got = slirp.frames.take([](const Bytes& f) {
    return be16(f, 12) == kEtherIpv4 && f.size() > 42 && f[23] == 17 && be16(f, 36) == 7;
  });
  REQUIRE(got.has_value());
  CHECK(std::string(got->begin() + 42, got->begin() + 44) == "hi");
}

TEST_CASE("slirp survives frames that are empty, short, huge or nonsense") {
  OpenNet slirp("slirp");
  for (const size_t size : {0, 1, 13, 14, 15, 33, 60, 1514, 9000, 65554})
    for (const uint8_t fill : {0x00, 0x45, 0xff}) slirp.net->send(Bytes(size, fill));
  slirp.net->send(Bytes(kFrameMax + 1));
  CHECK(slirp.net->dropped() == 1);
  Bytes bent = dhcp_discover(1);
  bent[16] = 0xff;  // a total length far past the end
  slirp.net->send(bent);
  slirp.net->send(arp_request(0, kGateway));
  CHECK(slirp.frames.take([](const Bytes& f) { return is_arp_reply_from(f, kGateway); }));
}

#ifndef US_SANITIZED  // libvdeplug loads its transports in a way that sanitizers refuse
                      // (RTLD_DEEPBIND)
TEST_CASE("two ports of a VDE switch see each other's frames") {
  if (::access("/usr/bin/vde_switch", X_OK) != 0) {
    std::fprintf(stderr, "SKIPPED: no /usr/bin/vde_switch (Debian package vde2)\n");
    return;
  }
  const ScratchFolder folder;
  const std::string socket = folder.file("sw");
  const char* arguments[] = {"vde_switch", "-s", socket.c_str(), nullptr};
  // Its console reads standard input, and the switch ends with it: give it one that stays quiet.
  int quiet[2];
  REQUIRE(::pipe2(quiet, O_CLOEXEC) == 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, quiet[0], 0);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  pid_t pid = 0;
  REQUIRE(::posix_spawn(&pid, "/usr/bin/vde_switch", &actions, nullptr,
                        const_cast<char**>(arguments), environ) == 0);
  posix_spawn_file_actions_destroy(&actions);
  for (int i = 0; i < 2000 && ::access((socket + "/ctl").c_str(), F_OK) != 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  {
    OpenNet a("vde:" + socket), b("vde:" + socket);
    const Bytes hello = arp_request(kGuest, kGateway);
    // The switch may still be taking in the second port when the first frame comes: a frame that
    // finds no port is lost, as on any wire.
    for (int i = 0; i < 200 && b.frames.size() == 0; ++i) {
      a.net->send(hello);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    CHECK(b.frames.take() == hello);
    FrameWriter back;
    back.mac(kGuestMac).mac({2, 0, 0, 0, 0, 1}).u16(kEtherIpv4).zeros(1500);
    b.net->send(back.bytes());
    CHECK(a.frames.take() == back.bytes());
    a.net->stop();
  }
  ::kill(pid, SIGTERM);
  ::waitpid(pid, nullptr, 0);
  ::close(quiet[0]);
  ::close(quiet[1]);
}
#else
TEST_CASE("two ports of a VDE switch: left out under a sanitizer") {
  std::fprintf(stderr, "SKIPPED: libvdeplug cannot be run under a sanitizer\n");
}
#endif
