#include "calib/measurements.h"

namespace us::calib {
namespace {

using nlohmann::json;

json numbers(const Histogram& histogram) {
  json out = json::array();
  for (const auto& [value, times] : histogram.counts()) out.push_back(json::array({value, times}));
  return out;
}

Histogram histogram_of(const json& list) {
  Histogram out;
  for (const json& pair : list) out.add(pair.at(0).get<uint64_t>(), pair.at(1).get<uint64_t>());
  return out;
}

json to_json(const CountTally& t) {
  return {{"pieces", t.pieces},
          {"branches", t.branches},
          {"taken", t.taken},
          {"counted", t.counted},
          {"interrupts", t.interrupts},
          {"pieces_over", t.pieces_over},
          {"pieces_under", t.pieces_under},
          {"over", t.over},
          {"under", t.under},
          {"over_max", t.over_max}};
}

CountTally count_tally_of(const json& j) {
  return {.pieces = j.at("pieces"),
          .branches = j.at("branches"),
          .taken = j.at("taken"),
          .counted = j.at("counted"),
          .interrupts = j.at("interrupts"),
          .pieces_over = j.at("pieces_over"),
          .pieces_under = j.at("pieces_under"),
          .over = j.at("over"),
          .under = j.at("under"),
          .over_max = j.at("over_max")};
}

json to_json(const AlarmTally& t) {
  return {
      {"armed", t.armed}, {"missing", t.missing}, {"early", t.early}, {"late", numbers(t.late)}};
}

AlarmTally alarm_tally_of(const json& j) {
  return {.armed = j.at("armed"),
          .missing = j.at("missing"),
          .late = histogram_of(j.at("late")),
          .early = j.at("early")};
}

struct CostKey {
  const char* key;
  std::optional<double> CostFigures::*member;
};
constexpr CostKey kCosts[] = {{"read_ns", &CostFigures::read_ns},
                              {"arm_ns", &CostFigures::arm_ns},
                              {"alarm_ns", &CostFigures::alarm_ns},
                              {"step_ns", &CostFigures::step_ns},
                              {"break_ns", &CostFigures::break_ns}};

Measurements read(const json& j) {
  Measurements out;
  for (const auto& [name, tally] : j.at("counts").items()) out.counts[name] = count_tally_of(tally);
  out.sparse = alarm_tally_of(j.at("sparse"));
  out.storm = alarm_tally_of(j.at("storm"));
  for (const auto& [period, tally] : j.at("periods").items())
    out.periods[std::stoull(period)] = alarm_tally_of(tally);
  for (const auto& [shape, tally] : j.at("skid").items()) out.skid[shape] = alarm_tally_of(tally);
  for (const auto& [margin, t] : j.at("landings").items())
    out.landings[std::stoull(margin)] = {.landings = t.at("landings"),
                                         .alarms = t.at("alarms"),
                                         .stops = t.at("stops"),
                                         .overshoots = t.at("overshoots")};
  for (const auto& [key, member] : kCosts)
    if (const auto found = j.at("costs").find(key); found != j.at("costs").end())
      out.costs.*member = found->get<double>();
  for (const json& stretch : j.at("tsc")) {
    TscStretch& samples = out.tsc.emplace_back();
    for (const json& sample : stretch)
      samples.push_back({.tsc = sample.at(0), .clock_ns = sample.at(1)});
  }
  for (const auto& [what, why] : j.at("skipped").items()) out.skipped[what] = why;
  return out;
}

}  // namespace

json to_json(const Measurements& measured) {
  json counts = json::object(), periods = json::object(), skid = json::object(),
       landings = json::object(), costs = json::object();
  for (const auto& [name, tally] : measured.counts) counts[name] = to_json(tally);
  for (const auto& [period, tally] : measured.periods)
    periods[std::to_string(period)] = to_json(tally);
  for (const auto& [shape, tally] : measured.skid) skid[shape] = to_json(tally);
  for (const auto& [margin, t] : measured.landings)
    landings[std::to_string(margin)] = {{"landings", t.landings},
                                        {"alarms", t.alarms},
                                        {"stops", t.stops},
                                        {"overshoots", t.overshoots}};
  for (const auto& [key, member] : kCosts)
    if (measured.costs.*member) costs[key] = *(measured.costs.*member);
  json tsc = json::array();
  for (const TscStretch& stretch : measured.tsc) {
    json samples = json::array();
    for (const TscSample& s : stretch) samples.push_back(json::array({s.tsc, s.clock_ns}));
    tsc.push_back(samples);
  }
  return {{"counts", counts},
          {"sparse", to_json(measured.sparse)},
          {"storm", to_json(measured.storm)},
          {"periods", periods},
          {"skid", skid},
          {"landings", landings},
          {"costs", costs},
          {"tsc", tsc},
          {"skipped", measured.skipped}};
}

std::optional<Measurements> measurements_from_json(const json& j) {
  try {
    return read(j);
  } catch (const std::exception&) {  // json's of a wrong type, stoull's of no number
    return std::nullopt;
  }
}

}  // namespace us::calib
