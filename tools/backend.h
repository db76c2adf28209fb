// --backend, and what goes with it: which vCPU the machines of this process get, whether this host
// can have it, and how two hosts know that their vCPUs run alike.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <optional>
#include <string>

#include "base/result.h"
#include "pmu/profile.h"

namespace us::tools {

struct BackendChoice {
  std::string name = "auto";  // auto, soft or kvm
  // The guest reads no time stamp counter, and is told that it has none.
  bool cooperative = false;
  bool by_steps = false;        // KVM without a counter: every instruction is stepped
  std::optional<unsigned> cpu;  // the vCPU's thread runs there; nothing: wherever it is put
  bool checked = false;         // this host has been found fit for it already

  // What makes two backends run a guest alike; part of the handshake of a pair.
  std::string contract() const;
  // As long as "auto" is not decided: the model, for which any profile will do.
  pmu::LandsBy lands_by() const;
};

// For verbs that take no VM options: those that a recording or a primary does not decide.
void add_backend_options(CLI::App& app, BackendChoice& choice);

// Makes machines from now on have that vCPU; "auto" becomes what it means here: KVM where this host
// can record any guest on it, else the software processor. Error: KVM-009 this host cannot, its
// rows of hostcheck named.
Status use_backend(BackendChoice& choice);

// Which contracts this host can keep, and land in with its profile, if it has one. The host is
// checked once, when this is made: it takes too long for whoever asks later, who has a peer
// waiting.
class Contracts {
 public:
  Contracts(const BackendChoice& here, const std::optional<pmu::HostProfile>& profile);
  // Why this host cannot run what the contract names; empty: it can.
  std::string refuse(const std::string& contract) const;

 private:
  std::map<std::string, std::string> refusals_;  // by contract
};

// The counter as far as it is known without calibration: on KVM from the table of
// microarchitectures, else the model's, which is exact.
pmu::HostProfile uncalibrated_profile(const BackendChoice& choice);

}  // namespace us::tools
