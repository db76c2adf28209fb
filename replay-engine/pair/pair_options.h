// What both sides of a pair are told about themselves and their patience.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "logchannel/frame.h"
#include "replay-engine/pair/lag_control.h"

namespace us::replay {

struct PairOptions {
  std::string vm_name;
  std::string node;                 // this side, as the arbiter knows it
  std::string contract = "soft-1";  // what makes two backends run alike; the live side's
  // A standby's word on a primary's contract: why it cannot keep it, or nothing. Empty: it can keep
  // its own `contract` only.
  std::function<std::string(const std::string& contract)> refuse_contract = {};
  // Of the live machine's configuration; a standby has none of its own.
  std::array<uint8_t, 16> config_digest{};

  std::chrono::nanoseconds heartbeat{std::chrono::milliseconds(50)};
  // Nothing heard for so long: the peer is lost. The secondary waits `secondary_extra` longer, so
  // that where both live and only the network is gone, the primary is first at the arbiter.
  std::chrono::nanoseconds silence{std::chrono::milliseconds(500)};
  std::chrono::nanoseconds secondary_extra{std::chrono::milliseconds(200)};
  // The same after its connection closed, which a crash does and a slow host does not.
  std::chrono::nanoseconds closed_grace{std::chrono::milliseconds(200)};
  // Between two attempts to connect: while protected, and while alone.
  std::chrono::nanoseconds reconnect{std::chrono::milliseconds(40)};
  std::chrono::nanoseconds retry{std::chrono::milliseconds(1000)};
  std::chrono::nanoseconds arbiter_retry{std::chrono::milliseconds(200)};

  uint64_t buffer_bytes =
      64ull << 20;  // unacknowledged on the primary, unreplayed on the secondary
  LagOptions lag;
  log::FrameOptions frame;
};

}  // namespace us::replay
