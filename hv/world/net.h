// Network backends: where a guest's Ethernet frames go and come from. Live only; a replayed machine
// has its frames from the log.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <netinet/in.h>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace us::hv {

// Longest frame taken or given: 64 KiB of payload with an Ethernet header and a VLAN tag.
constexpr size_t kFrameMax = 65536 + 18;

// Called on the backend's own thread with each frame that arrives for the guest.
using FrameHandler = std::function<void(Bytes frame)>;

class NetBackend {
 public:
  virtual ~NetBackend() = default;
  // A frame of the guest's goes out. Never blocks: what the other side cannot take at once is
  // dropped and counted. From any one thread at a time.
  virtual void send(ByteSpan frame) = 0;
  // No handler call begins after this returns. send() does nothing from then on. Called by the
  // destructors too.
  virtual void stop() = 0;
  // Frames that were dropped on the way out.
  virtual uint64_t dropped() const = 0;
};

enum class NetKind : uint8_t { kNone, kSlirp, kVde, kTap };

struct HostForward {
  bool udp = false;
  in_addr host_address{};  // network order; 0.0.0.0: every address of the host
  uint16_t host_port = 0;
  in_addr guest_address{};  // 0.0.0.0: the guest's first DHCP address
  uint16_t guest_port = 0;
};

struct NetSpec {
  NetKind kind = NetKind::kNone;
  std::string target = {};                 // vde: the switch's path or URL; tap: the interface
  std::vector<HostForward> forwards = {};  // slirp
};

// Reads `none`, `slirp[:hostfwd=tcp|udp:[IP]:PORT-[GUEST]:PORT[,hostfwd=...]]`, `vde:PATH` or
// `tap:IFNAME`. Errors: NET-001 unknown backend, NET-002 bad option.
Result<NetSpec> parse_net_spec(const std::string& text);

// Opens a backend; frames arrive from now on. Errors: NET-003 cannot be opened, NET-004 port cannot
// be forwarded.
Result<std::unique_ptr<NetBackend>> open_net(const NetSpec& spec, FrameHandler handler);

// One factory a kind; open_net() calls them.
Result<std::unique_ptr<NetBackend>> open_slirp(const NetSpec& spec, FrameHandler handler);
Result<std::unique_ptr<NetBackend>> open_vde(const NetSpec& spec, FrameHandler handler);
Result<std::unique_ptr<NetBackend>> open_tap(const NetSpec& spec, FrameHandler handler);

}  // namespace us::hv
