// What `status` shows: one value, filled by the pair, printed as a panel, JSON or metrics.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace us::tools {

struct FtStatus {
  std::string vm_name;
  std::string role;   // "primary" | "secondary"
  std::string state;  // "protected"; not: "connecting", "transferring", "reconnecting", "claiming",
                      // "alone", "halted"; a secondary's "waiting", "transferring", "replaying",
                      // "reconnecting", "session over", "closed"
  std::string reason;  // why it is not protected; empty when it is
  std::string peer;    // "ADDR:PORT", empty: none
  std::string arbiter;
  uint64_t generation = 0;
  double lag_seconds = 0;                 // how far the secondary's execution is behind, now
  double vlockstep_interval_seconds = 0;  // its moving average, round trip taken off
  double round_trip_seconds = 0;
  double lag_target_seconds = 0;
  double slowdown_percent = 0;  // of its time that the primary gives up
  uint64_t log_position = 0, acked_position = 0, replayed_position = 0;
  uint64_t log_bytes = 0;  // made by this process, of all sessions, state transfers included
  double log_bytes_per_second = 0;
  uint64_t output_held = 0;  // outputs waiting for an ack
  uint64_t output_held_bytes = 0;
  double hold_p50_seconds = 0, hold_p99_seconds = 0, hold_max_seconds = 0;
  uint64_t outputs_released = 0;
  uint64_t buffer_bytes = 0,
           buffer_limit_bytes = 0;  // unacknowledged (primary), unreplayed (secondary)
  bool held_back = false;           // the vCPU waits for room in the buffer
  uint64_t failovers = 0, sessions = 0, reconnects = 0;
  uint64_t divergences = 0;       // secondaries sent away since their execution was another
  std::string last_divergence;    // what the last of them said
  std::string not_traced;         // why paths are not compared in this session, though wanted
  double transfer_percent = 0;    // state transfer under way
  double last_pause_seconds = 0;  // of the guest, at the end of the last state transfer
  // Of the last failover, where this side took over.
  double failover_detection_seconds = 0, failover_drain_seconds = 0, failover_arbiter_seconds = 0,
         failover_go_live_seconds = 0;
  uint64_t branches = 0, instructions = 0;  // the guest's position
  double guest_seconds = 0;
};

// With "schema": "understudy-status-1" and every key of FtStatus under its own name.
nlohmann::json to_json(const FtStatus& status);
FtStatus status_from_json(const nlohmann::json& json);
// The panel for people, several lines; `colour` as the terminal allows.
std::string panel(const FtStatus& status, bool colour);

}  // namespace us::tools
