#include "tools/control/status.h"

#include <fmt/format.h>

namespace us::tools {
namespace {

// Every member of FtStatus with its own name; both directions of JSON go through it.
template <class Status, class Visit>
void visit_members(Status& s, Visit visit) {
#define US_MEMBER(name) visit(#name, s.name)
  US_MEMBER(vm_name);
  US_MEMBER(role);
  US_MEMBER(state);
  US_MEMBER(reason);
  US_MEMBER(peer);
  US_MEMBER(arbiter);
  US_MEMBER(generation);
  US_MEMBER(lag_seconds);
  US_MEMBER(vlockstep_interval_seconds);
  US_MEMBER(round_trip_seconds);
  US_MEMBER(lag_target_seconds);
  US_MEMBER(slowdown_percent);
  US_MEMBER(log_position);
  US_MEMBER(acked_position);
  US_MEMBER(replayed_position);
  US_MEMBER(log_bytes);
  US_MEMBER(log_bytes_per_second);
  US_MEMBER(output_held);
  US_MEMBER(output_held_bytes);
  US_MEMBER(hold_p50_seconds);
  US_MEMBER(hold_p99_seconds);
  US_MEMBER(hold_max_seconds);
  US_MEMBER(outputs_released);
  US_MEMBER(buffer_bytes);
  US_MEMBER(buffer_limit_bytes);
  US_MEMBER(held_back);
  US_MEMBER(failovers);
  US_MEMBER(sessions);
  US_MEMBER(reconnects);
  US_MEMBER(divergences);
  US_MEMBER(last_divergence);
  US_MEMBER(not_traced);
  US_MEMBER(transfer_percent);
  US_MEMBER(last_pause_seconds);
  US_MEMBER(failover_detection_seconds);
  US_MEMBER(failover_drain_seconds);
  US_MEMBER(failover_arbiter_seconds);
  US_MEMBER(failover_go_live_seconds);
  US_MEMBER(branches);
  US_MEMBER(instructions);
  US_MEMBER(guest_seconds);
#undef US_MEMBER
}

// What cannot be taken as the member's type leaves it as it is: another release may have sent it.
void take(const nlohmann::json& value, std::string& out) {
  if (value.is_string()) out = value.get<std::string>();
}
void take(const nlohmann::json& value, bool& out) {
  if (value.is_boolean()) out = value.get<bool>();
}
void take(const nlohmann::json& value, uint64_t& out) {
  if (value.is_number_unsigned()) out = value.get<uint64_t>();
}
void take(const nlohmann::json& value, double& out) {
  if (value.is_number()) out = value.get<double>();
}

std::string size_text(double bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < std::size(kUnits); ++unit) bytes /= 1024;
  return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : 1, kUnits[unit]);
}
std::string size_text(uint64_t bytes) { return size_text(static_cast<double>(bytes)); }

std::string time_text(double seconds) {
  if (seconds >= 1) return fmt::format("{:.2f} s", seconds);
  if (seconds >= 0.001) return fmt::format("{:.1f} ms", seconds * 1e3);
  return fmt::format("{:.0f} us", seconds * 1e6);
}

// What came from another process must not steer the terminal.
std::string clean(const std::string& text) {
  std::string out;
  for (const char c : text) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return out;
}

std::string row(const char* name, const std::string& text) {
  return fmt::format("  {:<10} {}\n", name, text);
}

const char* colour_of(const FtStatus& s) {
  if (s.state == "protected" || (s.role == "secondary" && s.reason.empty())) return "\033[32m";
  return s.state == "halted" ? "\033[31m" : "\033[33m";
}

std::string log_rows(const FtStatus& s) {
  std::string out;
  out += row("lag", fmt::format("{}, vLockstep interval {} (target {}), round trip {}",
                                time_text(s.lag_seconds), time_text(s.vlockstep_interval_seconds),
                                time_text(s.lag_target_seconds), time_text(s.round_trip_seconds)));
  out += row("slowed by", fmt::format("{:.0f} %{}", s.slowdown_percent,
                                      s.held_back ? ", held back: the buffer is full" : ""));
  out += row("log", fmt::format("{}/s; position {}, acknowledged {}, replayed {}",
                                size_text(s.log_bytes_per_second), s.log_position, s.acked_position,
                                s.replayed_position));
  out += row("buffer",
             fmt::format("{} of {}", size_text(s.buffer_bytes), size_text(s.buffer_limit_bytes)));
  out += row("outputs",
             fmt::format("{} held ({}), {} released; held for {} (median), {} (p99), {} (max)",
                         s.output_held, size_text(s.output_held_bytes), s.outputs_released,
                         time_text(s.hold_p50_seconds), time_text(s.hold_p99_seconds),
                         time_text(s.hold_max_seconds)));
  return out;
}

}  // namespace

nlohmann::json to_json(const FtStatus& status) {
  nlohmann::json out{{"schema", "understudy-status-1"}};
  visit_members(status, [&](const char* name, const auto& value) { out[name] = value; });
  return out;
}

FtStatus status_from_json(const nlohmann::json& json) {
  FtStatus status;
  if (!json.is_object()) return status;
  visit_members(status, [&](const char* name, auto& value) {
    const auto it = json.find(name);
    if (it != json.end()) take(*it, value);
  });
  return status;
}

std::string panel(const FtStatus& s, bool colour) {
  const char* on = colour ? colour_of(s) : "";
  const char* off = colour ? "\033[0m" : "";
  std::string out = fmt::format("{}  {}  {}{}{}  generation {}\n", clean(s.vm_name), clean(s.role),
                                on, clean(s.state), off, s.generation);
  if (!s.reason.empty()) out += row("reason", clean(s.reason));
  out += row("peer", s.peer.empty() ? "none" : clean(s.peer));
  out += row("arbiter", s.arbiter.empty() ? "none" : clean(s.arbiter));
  if (s.state == "transferring")
    out += row("transfer", fmt::format("{:.0f} %", s.transfer_percent));
  out += log_rows(s);
  out += row("sessions", fmt::format("{}, {} reconnects, {} failovers, last pause {}", s.sessions,
                                     s.reconnects, s.failovers, time_text(s.last_pause_seconds)));
  if (s.divergences > 0)
    out +=
        row("diverged", fmt::format("{} times, last: {}", s.divergences, clean(s.last_divergence)));
  if (!s.not_traced.empty()) out += row("not traced", clean(s.not_traced));
  const double failover = s.failover_detection_seconds + s.failover_drain_seconds +
                          s.failover_arbiter_seconds + s.failover_go_live_seconds;
  if (failover > 0) {
    out += row(
        "took over",
        fmt::format("in {}: detection {}, drain {}, arbiter {}, going live {}", time_text(failover),
                    time_text(s.failover_detection_seconds), time_text(s.failover_drain_seconds),
                    time_text(s.failover_arbiter_seconds), time_text(s.failover_go_live_seconds)));
  }
  out += row("guest", fmt::format("{:.1f} s, branch {}, instruction {}", s.guest_seconds,
                                  s.branches, s.instructions));
  return out;
}

}  // namespace us::tools
