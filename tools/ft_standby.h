// The standby's work between a session's begin and its end: the machine is made from what the
// primary sends, replays its log, and where the primary is lost becomes the live one.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "replay-engine/log_source.h"
#include "replay-engine/pair/standby_driver.h"
#include "tools/ft_live.h"

namespace us::tools {

// A secondary's machine, as far as the log has come.
struct Shadow {
  VmConfig config;
  std::unique_ptr<hv::Machine> machine;
  replay::EndOfInputs end;
  uint64_t verified_epochs = 0;
  replay::WitnessCounters traced;
  replay::LandingCounters landings;
  Digest final_digest;  // of the whole machine, where the log told how the primary's ended
  std::optional<UserError> error;  // the session could not be used
};

// Replays one session to its end. Never longer than the session lasts.
Shadow follow_session(FtBase& base, replay::StandbyDriver& driver,
                      const replay::StandbySession& session, const std::string& vm_here);

// Sends on every network that the MAC addresses are here now, so that switches learn it (a RARP
// request, RFC 903, as other hypervisors send).
void announce(hv::World& world, const hv::MachineConfig& config);
Bytes announcement(const std::array<uint8_t, 6>& mac);

}  // namespace us::tools
