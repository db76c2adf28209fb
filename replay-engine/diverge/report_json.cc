#include <fmt/format.h>

#include "replay-engine/diverge/report.h"

namespace us::replay {
namespace {

using nlohmann::json;

std::string hex(uint64_t value) { return fmt::format("{:#x}", value); }

json to_json(const hv::ExecutionPoint& p) {
  return {
      {"branches", p.branches.value}, {"instructions", p.instructions.value}, {"rip", hex(p.rip)}};
}

json to_json(const Place& place) {
  json j = to_json(place.point);
  j["epoch"] = place.epoch;
  if (!place.symbol.empty()) j["symbol"] = place.symbol;
  return j;
}

json to_json(const CodeLine& code) {
  json j{{"ip", hex(code.ip)}, {"bytes", code.bytes}, {"text", code.text}};
  if (!code.symbol.empty()) j["symbol"] = code.symbol;
  return j;
}

json to_json(const std::vector<PathStep>& path) {
  json j = json::array();
  for (const PathStep& step : path) {
    json s = to_json(step.code);
    s["branches"] = step.point.branches.value;
    s["instructions"] = step.point.instructions.value;
    if (step.event) s["event"] = true;
    j.push_back(std::move(s));
  }
  return j;
}

json to_json(const Fork& fork) {
  json j{{"ordinal", fork.ordinal},
         {"ip", hex(fork.at.rip)},
         {"taken_a", fork.taken_a},
         {"taken_b", fork.taken_b},
         {"kind", name_of(fork.kind)},
         {"instruction", fork.code.text},
         {"instructions", fork.at.instructions.value},
         {"to_a", hex(fork.to_a)},
         {"to_b", hex(fork.to_b)},
         {"path_before", to_json(fork.before)},
         {"path_a", to_json(fork.after_a)},
         {"path_b", to_json(fork.after_b)}};
  j["decoded"] = fork.decoded;
  j["decoded_agrees"] = fork.decoded_agrees ? json(*fork.decoded_agrees) : json(nullptr);
  if (!fork.symbol.empty()) j["symbol"] = fork.symbol;
  return j;
}

json registers_json(const DivergeReport& report) {
  json j = json::array();
  if (!report.effect) return j;
  for (const RegisterDifference& r : report.effect->state.registers) {
    json row{{"name", r.name}, {"a", hex(r.a)}, {"b", hex(r.b)}, {"xor", hex(r.a ^ r.b)}};
    if (!r.detail.empty()) row["detail"] = r.detail;
    j.push_back(std::move(row));
  }
  return j;
}

json pages_json(const StateDifference& state) {
  json j = json::array();
  for (const PageDifference& p : state.pages)
    j.push_back({{"address", hex(p.address)},
                 {"first", p.first},
                 {"last", p.last},
                 {"bytes", p.bytes},
                 {"a", p.a},
                 {"b", p.b}});
  return j;
}

json effect_json(const FirstEffect& e) {
  json j = to_json(e.before);
  j["instruction"] = e.code.text;
  j["differs"] = e.differs;
  if (!e.symbol.empty()) j["symbol"] = e.symbol;
  j["after_a"] = to_json(e.after_a);
  j["after_b"] = to_json(e.after_b);
  j["processor"] = e.state.processor;
  j["devices"] = e.state.devices;
  j["pages"] = pages_json(e.state);
  j["pages_in_all"] = e.state.pages_in_all;
  return j;
}

json trace_json(const TraceFinding& t) {
  json j{{"compared", t.compared},
         {"unknown", t.unknown},
         {"counter_mismatches", t.counter_mismatches},
         {"text", t.text}};
  if (t.first_unknown) j["first_unknown"] = *t.first_unknown;
  if (t.first_counter_mismatch) j["first_counter_mismatch"] = *t.first_counter_mismatch;
  if (t.first_differing) j["first_differing"] = *t.first_differing;
  if (t.branch_end != 0) j["branches"] = {t.branch_first, t.branch_end};
  return j;
}

json context_json(const LogContext& context) {
  json j{{"lines", context.lines}};
  j["marked"] = context.marked ? json(*context.marked) : json(nullptr);
  return j;
}

json causes_json(const std::vector<Cause>& causes) {
  json j = json::array();
  for (const Cause& c : causes)
    j.push_back({{"cause", c.cause}, {"evidence", c.evidence}, {"next", c.next}});
  return j;
}

json environment_json(const std::vector<EnvironmentRow>& rows) {
  json j = json::array();
  for (const EnvironmentRow& row : rows)
    j.push_back({{"name", row.name}, {"a", row.a}, {"b", row.b}, {"here", row.here}});
  return j;
}

}  // namespace

json to_json(const DivergeReport& r) {
  const bool differs = is_difference(r.verdict);
  json j{{"schema", "understudy.diverge.v1"},
         {"verdict", name_of(r.verdict)},
         {"headline", r.headline},
         {"confidence", r.confidence == Confidence::kReproduced ? "reproduced" : "recorded"},
         {"a", r.name_a},
         {"b", r.name_b},
         {"epochs_compared", r.epochs_compared},
         {"differs", r.differs},
         {"last_agreeing", to_json(r.last_agreeing)},
         {"first_differing", differs ? to_json(r.first_differing) : json(nullptr)},
         {"branch", r.fork ? to_json(*r.fork) : json(nullptr)},
         {"registers", registers_json(r)},
         {"effect", r.effect ? effect_json(*r.effect) : json(nullptr)},
         {"trace", trace_json(r.trace)},
         {"log", {{"a", context_json(r.log_a)}, {"b", context_json(r.log_b)}}},
         {"counter", {{"a", r.counter_a}, {"b", r.counter_b}}},
         {"repeat",
          {{"runs", r.repetition.runs},
           {"same", r.repetition.same},
           {"elsewhere", r.repetition.elsewhere},
           {"gone", r.repetition.gone}}},
         {"environment", environment_json(r.environment)},
         {"planted", r.planted},
         {"notes", r.notes},
         {"log_notes", r.log_notes},
         {"causes", causes_json(r.causes)}};
  j["input"] = nullptr;
  if (r.input)
    j["input"] = {{"record", r.input->ordinal},
                  {"epoch", r.input->epoch},
                  {"what", r.input->what},
                  {"a", to_json(r.input->at_a)},
                  {"b", to_json(r.input->at_b)}};
  j["error"] = nullptr;
  if (r.error)
    j["error"] = {{"id", r.error->id},
                  {"what", r.error->what},
                  {"seen", r.error->seen},
                  {"needed", r.error->needed},
                  {"mend", r.error->mend}};
  return j;
}

}  // namespace us::replay
