// FtStatus as Prometheus has it.
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include "tools/control/metrics.h"

namespace us::tools {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

class Families {
 public:
  explicit Families(const FtStatus& s) : labels_{{"vm", s.vm_name}, {"role", s.role}} {}

  void gauge(const char* name, const char* help, double value) {
    ClientMetric metric;
    metric.label = labels_;
    metric.gauge.value = value;
    add(name, help, MetricType::Gauge, {std::move(metric)});
  }
  void counter(const char* name, const char* help, uint64_t value) {
    ClientMetric metric;
    metric.label = labels_;
    metric.counter.value = static_cast<double>(value);
    add(name, help, MetricType::Counter, {std::move(metric)});
  }
  // One for each of `values` of the label `label`.
  void gauges(const char* name, const char* help, const char* label,
              const std::vector<std::pair<std::string, double>>& values) {
    std::vector<ClientMetric> metrics;
    for (const auto& [text, value] : values) {
      ClientMetric metric;
      metric.label = labels_;
      metric.label.push_back({label, text});
      metric.gauge.value = value;
      metrics.push_back(std::move(metric));
    }
    add(name, help, MetricType::Gauge, std::move(metrics));
  }
  const std::vector<MetricFamily>& all() const { return all_; }

 private:
  void add(const char* name, const char* help, MetricType type, std::vector<ClientMetric> metrics) {
    MetricFamily family;
    family.name = name;
    family.help = help;
    family.type = type;
    family.metric = std::move(metrics);
    all_.push_back(std::move(family));
  }

  const std::vector<ClientMetric::Label> labels_;
  std::vector<MetricFamily> all_;
};

void add_state(Families& f, const FtStatus& s) {
  std::vector<std::pair<std::string, double>> states;
  bool known = false;
  for (const char* state : {"connecting", "transferring", "protected", "reconnecting", "claiming",
                            "alone", "waiting", "replaying", "halted"}) {
    states.emplace_back(state, s.state == state ? 1 : 0);
    known = known || s.state == state;
  }
  if (!known && !s.state.empty()) states.emplace_back(s.state, 1);
  f.gauges("understudy_state", "1 for the state this side is in.", "state", states);
  f.gauge("understudy_generation", "Generation that this side belongs to.",
          static_cast<double>(s.generation));
  f.gauge("understudy_peer_connected", "Whether the other side is known.", s.peer.empty() ? 0 : 1);
  f.counter("understudy_failovers_total", "Times that this side took over.", s.failovers);
  f.counter("understudy_sessions_total", "State transfers begun.", s.sessions);
  f.counter("understudy_reconnects_total", "Connections that were resumed.", s.reconnects);
  f.gauge("understudy_transfer_ratio", "State transfer under way, 0 to 1.",
          s.transfer_percent / 100);
  f.gauge("understudy_last_pause_seconds", "Pause of the guest at the last transfer's end.",
          s.last_pause_seconds);
  f.gauges("understudy_failover_seconds", "The last failover to this side, by part.", "part",
           {{"detection", s.failover_detection_seconds},
            {"drain", s.failover_drain_seconds},
            {"arbiter", s.failover_arbiter_seconds},
            {"go-live", s.failover_go_live_seconds}});
}

void add_log(Families& f, const FtStatus& s) {
  f.gauge("understudy_lag_seconds", "How far the secondary's execution is behind.", s.lag_seconds);
  f.gauge("understudy_vlockstep_interval_seconds",
          "Moving average of the lag, round trip taken off.", s.vlockstep_interval_seconds);
  f.gauge("understudy_lag_target_seconds", "Lag above which the primary is slowed.",
          s.lag_target_seconds);
  f.gauge("understudy_round_trip_seconds", "Round trip to the other side.", s.round_trip_seconds);
  f.gauge("understudy_slowdown_ratio", "Part of its time that the primary gives up, 0 to 1.",
          s.slowdown_percent / 100);
  f.counter("understudy_log_written_bytes_total", "The log's end.", s.log_position);
  f.counter("understudy_log_made_bytes_total", "Log of all sessions, state transfers included.",
            s.log_bytes);
  f.counter("understudy_log_acknowledged_bytes_total", "Where the secondary holds the log to.",
            s.acked_position);
  f.counter("understudy_log_replayed_bytes_total", "Where the secondary's machine stands.",
            s.replayed_position);
  f.gauge("understudy_log_bytes_per_second", "Log bandwidth.", s.log_bytes_per_second);
  f.gauge("understudy_buffer_bytes", "Log unacknowledged (primary) or unreplayed (secondary).",
          static_cast<double>(s.buffer_bytes));
  f.gauge("understudy_buffer_limit_bytes", "Bound of that.",
          static_cast<double>(s.buffer_limit_bytes));
  f.gauge("understudy_held_back", "1 while the guest waits for room in the buffer.",
          s.held_back ? 1 : 0);
}

void add_outputs(Families& f, const FtStatus& s) {
  f.gauge("understudy_outputs_held", "Outputs that wait for an acknowledgement.",
          static_cast<double>(s.output_held));
  f.gauge("understudy_outputs_held_bytes", "Bytes of these.",
          static_cast<double>(s.output_held_bytes));
  f.counter("understudy_outputs_released_total", "Outputs let out.", s.outputs_released);
  f.gauges("understudy_output_hold_seconds", "How long outputs waited.", "quantile",
           {{"0.5", s.hold_p50_seconds}, {"0.99", s.hold_p99_seconds}, {"1", s.hold_max_seconds}});
}

void add_guest(Families& f, const FtStatus& s) {
  f.counter("understudy_guest_branches_total", "Conditional branches the guest retired.",
            s.branches);
  f.counter("understudy_guest_instructions_total", "Instructions the guest retired.",
            s.instructions);
  f.gauge("understudy_guest_seconds", "The guest's clock.", s.guest_seconds);
}

}  // namespace

std::string metrics_text(const FtStatus& status) {
  Families families(status);
  add_state(families, status);
  add_log(families, status);
  add_outputs(families, status);
  add_guest(families, status);
  return prometheus::TextSerializer().Serialize(families.all());
}

}  // namespace us::tools
