// The live half of a protected VM: a machine in the live world whose outputs pass the gate, with a
// secondary to be found and kept. `protect` starts with one, `standby` gets one when it takes over.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "logchannel/channel/link.h"
#include "pmu/profile.h"
#include "replay-engine/arbiter/arbiter.h"
#include "replay-engine/pair/live_driver.h"
#include "replay-engine/pair/live_observer.h"
#include "tools/control/status.h"
#include "tools/session.h"

namespace us::tools {

// Kicks a guest that may not be there yet, or not any more.
class GuestHandle {
 public:
  void set(hv::Machine* machine, hv::WorldEvents* events);
  void kick();  // to its next point
  void wake();  // also when it idles

 private:
  std::mutex mutex_;
  hv::Machine* machine_ = nullptr;
  hv::WorldEvents* events_ = nullptr;
};

// What both verbs are built on. Members in the order they depend on one another.
struct FtBase {
  FtBase(replay::PairOptions pair, log::Credentials credentials,
         std::unique_ptr<replay::Arbiter> arbiter, replay::EventHandler event);

  replay::PairOptions pair;
  log::Credentials credentials;
  std::unique_ptr<replay::Arbiter> arbiter;
  replay::EventHandler event;
  BackendChoice backend = {};  // what options of this side say of it
  // How the guest is traced; whether it is: the description's word, unless one was given here.
  replay::WitnessOptions witness = {};
  std::optional<bool> ipt_check = {};
  // This host's counter, where it was measured: what a session is followed with.
  std::optional<pmu::HostProfile> profile = {};
  // Tests: called before each input of a session that is followed here.
  std::function<void(hv::Machine&)> meddle = {};
  // A folder for what sessions received, where they diverged (tools/kept_log.h); empty: none.
  std::string keep_log = {};
  GuestHandle guest;
  replay::OutputGate gate;
  std::unique_ptr<log::Network> network;
};

// Whether and how one side of a pair traces its guest.
replay::WitnessOptions witness(const FtBase& base, const VmConfig& config);

// What the handshake says a machine is: a digest of hv/machine_config.h's bytes.
std::array<uint8_t, 16> config_digest(const hv::MachineConfig& machine);

class FtLive {
 public:
  // `generation` is this node's already. The base outlives it.
  FtLive(FtBase& base, uint64_t generation, const VmConfig& config,
         const hv::MachineConfig& machine);

  // Where a secondary is, or is to be found. Errors: CHAN-004.
  Status enable(const std::string& secondary);
  // Runs the machine until it ends, and lets out what may go out. Requests in flight when the
  // machine came here are submitted first.
  replay::EndOfInputs run(LiveWorld& live, hv::Machine& machine, SignalWatch& signals);
  // Answers a request of the control socket's.
  Result<nlohmann::json> request(const nlohmann::json& request);
  FtStatus status();
  uint64_t generation() { return driver_.side().status(replay::steady_now()).generation; }
  void note_failover(const FtStatus& measured);

 private:
  std::vector<replay::NamedSection> sections(const hv::Machine& machine) const;
  void settle(const replay::EndOfInputs& end);
  void request_stop();

  FtBase& base_;
  VmConfig config_;
  replay::LiveDriver driver_;
  std::mutex mutex_;
  std::function<void()> stop_;
  FtStatus failover_;  // figures of the take-over that made this side live
  replay::GuestProgress progress_;
  // Log bandwidth between two looks.
  uint64_t last_bytes_ = 0;
  std::chrono::nanoseconds last_look_{0};
  double bytes_per_second_ = 0;
};

}  // namespace us::tools
