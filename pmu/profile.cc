#include "pmu/profile.h"

#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <iterator>

#include "base/draft_file.h"
#include "pmu/toml_reader.h"

namespace us::pmu {
namespace {

constexpr uint64_t kIntegerMax = 0x7fffffffffffffff;  // TOML's integers are signed

struct ConfidenceName {
  Confidence confidence;
  const char* name;
};
constexpr ConfidenceName kConfidences[] = {{Confidence::kMeasured, "measured"},
                                           {Confidence::kTable, "table"},
                                           {Confidence::kModel, "model"}};

const char* name_of(Confidence confidence) {
  for (const auto& entry : kConfidences) {
    if (entry.confidence == confidence) return entry.name;
  }
  return "table";
}

struct TscFigure {
  const char* key;
  double TscStatistics::*member;
};
constexpr TscFigure kTscFigures[] = {{"hz", &TscStatistics::hz},
                                     {"hz_low", &TscStatistics::hz_low},
                                     {"hz_high", &TscStatistics::hz_high},
                                     {"drift_ppm_per_hour", &TscStatistics::drift},
                                     {"drift_low", &TscStatistics::drift_low},
                                     {"drift_high", &TscStatistics::drift_high},
                                     {"seconds", &TscStatistics::seconds}};

void read_confidence(const toml::table& table, TomlReader& reader, Confidence& out) {
  std::string text = name_of(out);
  reader.text("confidence", text);
  for (const auto& entry : kConfidences) {
    if (text == entry.name) {
      out = entry.confidence;
      return;
    }
  }
  reader.fail("PMU-005", *table.get("confidence"), "confidence", fmt::format("\"{}\"", text),
              "measured, table or model");
}

void read_quirks(TomlReader& reader, std::vector<Quirk>& out) {
  const toml::array* list = reader.array("quirks");
  if (list == nullptr) return;
  for (const toml::node& node : *list) {
    const auto* text = node.as_string();
    const auto quirk = text != nullptr ? quirk_by_name(text->get()) : std::nullopt;
    if (!quirk) {
      std::string known;
      for (const QuirkInfo& info : all_quirks()) {
        known += fmt::format("{}{}", known.empty() ? "" : ", ", info.name);
      }
      return reader.fail("PMU-006", node, "quirks",
                         fmt::format("\"{}\"", text != nullptr ? text->get() : "no text"),
                         fmt::format("known quirks: {}", known));
    }
    out.push_back(*quirk);
  }
}

// The parsing of one file: the tables share file name and first error.
class ProfileParser {
 public:
  ProfileParser(const toml::table& root, const std::string& file) : root_(root), file_(file) {}

  Result<HostProfile> parse() {
    HostProfile profile;
    TomlReader reader(root_, file_, "", error_);
    if (auto wrong = check_schema(reader)) return *wrong;
    for (const char* key : {"event", "margin"}) {
      reader.require(key, "at least the keys schema, event and margin");
    }
    reader.text("event", profile.event);
    reader.number("config", profile.config, kIntegerMax);
    reader.number("margin", profile.margin, kMarginMax);
    reader.number("minimum_period", profile.minimum_period, kMinimumPeriodMax, 1);
    reader.boolean("exact", profile.exact);
    read_confidence(root_, reader, profile.confidence);
    reader.text("date", profile.date);
    read_quirks(reader, profile.quirks);
    reader.real("step_ns", profile.step_ns);
    reader.real("read_ns", profile.read_ns);
    reader.real("arm_ns", profile.arm_ns);
    reader.real("trace_mb_per_s", profile.trace_mb_per_s);
    read_host(reader.table("host"), profile.host);
    read_skid(reader.table("skid"), profile.skid);
    read_tail(reader.table("tail"), profile.tail);
    read_overcount(reader.table("overcount"), profile.overcount);
    read_tsc(reader.table("tsc"), profile.tsc);
    read_model(reader.table("model"), profile.model);
    reader.refuse_unknown_keys();
    if (error_) return *error_;
    return profile;
  }

 private:
  std::optional<UserError> check_schema(TomlReader& reader) {
    std::string schema;
    reader.text("schema", schema);
    if (!error_ && schema != kProfileSchema) {
      error_ = profile_error(
          "PMU-007", file_, schema.empty() ? "no key schema" : fmt::format("schema \"{}\"", schema),
          fmt::format("schema = \"{}\"", kProfileSchema));
    }
    return error_;
  }

  void read_host(const toml::table* table, HostIdentity& out) {
    if (table == nullptr) return;
    TomlReader reader(*table, file_, "host.", error_);
    reader.text("cpu", out.cpu);
    reader.text("vendor", out.vendor);
    reader.number("family", out.family, 0xfff);
    reader.number("model", out.model, 0xff);
    reader.number("stepping", out.stepping, 0xf);
    reader.text("microcode", out.microcode);
    reader.text("kernel", out.kernel);
    reader.refuse_unknown_keys();
  }

  void read_skid(const toml::table* table, std::optional<SkidStatistics>& out) {
    if (table == nullptr) return;
    TomlReader reader(*table, file_, "skid.", error_);
    out.emplace();
    reader.number("p50", out->p50, kIntegerMax);
    reader.number("p99", out->p99, kIntegerMax);
    reader.number("max", out->max, kIntegerMax);
    reader.number("samples", out->samples, kIntegerMax);
    reader.number("p50_low", out->p50_low, kIntegerMax);
    reader.number("p50_high", out->p50_high, kIntegerMax);
    reader.number("p99_low", out->p99_low, kIntegerMax);
    reader.number("p99_high", out->p99_high, kIntegerMax);
    reader.refuse_unknown_keys();
  }

  void read_tail(const toml::table* table, std::optional<TailStatistics>& out) {
    if (table == nullptr) return;
    TomlReader reader(*table, file_, "tail.", error_);
    out.emplace();
    reader.text("kind", out->kind);
    reader.number("reach", out->reach, kIntegerMax);
    reader.number("reach_low", out->reach_low, kIntegerMax);
    reader.number("reach_high", out->reach_high, kIntegerMax);
    std::optional<double> probability, confidence;
    reader.real("overshoot_probability", probability);
    reader.real("confidence", confidence);
    out->overshoot_probability = probability.value_or(0);
    out->confidence = confidence.value_or(0);
    reader.refuse_unknown_keys();
  }

  void read_overcount(const toml::table* table, std::map<std::string, double>& out) {
    if (table == nullptr) return;
    TomlReader reader(*table, file_, "overcount.", error_);
    for (const auto& [key, node] : *table) {
      std::optional<double> value;
      reader.real(std::string(key.str()).c_str(), value);
      if (value) out[std::string(key.str())] = *value;
    }
  }

  void read_tsc(const toml::table* table, std::optional<TscStatistics>& out) {
    if (table == nullptr) return;
    TomlReader reader(*table, file_, "tsc.", error_);
    out.emplace();
    for (const auto& [key, member] : kTscFigures) {
      std::optional<double> value;
      reader.real(key, value,
                  member == &TscStatistics::drift_low || member == &TscStatistics::drift ||
                      member == &TscStatistics::drift_high);
      out.value().*member = value.value_or(0);
    }
    reader.text("clock_source", out->clock_source);
    reader.refuse_unknown_keys();
  }

  void read_model(const toml::table* table, std::optional<ModelSettings>& out) {
    if (table == nullptr) return;
    TomlReader reader(*table, file_, "model.", error_);
    out.emplace();
    std::string skid = "none";
    reader.text("skid", skid);
    const auto parsed = parse_skid(skid);
    if (!parsed) {
      reader.fail("PMU-008", *table->get("skid"), "skid", parsed.error().seen,
                  parsed.error().needed);
    } else {
      out->skid = *parsed;
    }
    reader.number("seed", out->seed, kIntegerMax);
    Misbehaviour& bad = out->misbehaviour;
    reader.number("overcount_one_in", bad.overcount_one_in, kIntegerMax);
    reader.number("overcount_branches", bad.overcount_branches, kMarginMax);
    reader.number("smi_interval_branches", bad.smi_interval_branches, kIntegerMax);
    reader.number("smi_branches_max", bad.smi_branches_max, kMarginMax);
    reader.number("hidden_period_min", bad.hidden_period_min, kMinimumPeriodMax);
    reader.number("lose_one_in", bad.lose_one_in, kIntegerMax);
    reader.number("throttle_arms", bad.throttle_arms, kIntegerMax);
    reader.number("throttle_window_branches", bad.throttle_window_branches, kIntegerMax);
    reader.boolean("taken_only", bad.taken_only);
    reader.refuse_unknown_keys();
  }

  const toml::table& root_;
  const std::string& file_;
  std::optional<UserError> error_;
};

toml::table host_table(const HostIdentity& host) {
  return toml::table{{"cpu", host.cpu},           {"vendor", host.vendor},
                     {"family", host.family},     {"model", host.model},
                     {"stepping", host.stepping}, {"microcode", host.microcode},
                     {"kernel", host.kernel}};
}

int64_t integer(uint64_t value) { return static_cast<int64_t>(value & kIntegerMax); }

toml::table model_table(const ModelSettings& model) {
  const Misbehaviour& bad = model.misbehaviour;
  toml::table out{{"skid", to_string(model.skid)}, {"seed", integer(model.seed)}};
  const Misbehaviour ideal;
  const auto put = [&out](const char* key, uint64_t value, uint64_t usual) {
    if (value != usual) out.insert(key, integer(value));
  };
  put("overcount_one_in", bad.overcount_one_in, ideal.overcount_one_in);
  put("overcount_branches", bad.overcount_branches, ideal.overcount_branches);
  put("smi_interval_branches", bad.smi_interval_branches, ideal.smi_interval_branches);
  put("smi_branches_max", bad.smi_branches_max, ideal.smi_branches_max);
  put("hidden_period_min", bad.hidden_period_min, ideal.hidden_period_min);
  put("lose_one_in", bad.lose_one_in, ideal.lose_one_in);
  put("throttle_arms", bad.throttle_arms, ideal.throttle_arms);
  put("throttle_window_branches", bad.throttle_window_branches, ideal.throttle_window_branches);
  if (bad.taken_only) out.insert("taken_only", true);
  return out;
}

toml::table skid_table(const SkidStatistics& skid) {
  toml::table out{{"p50", integer(skid.p50)},
                  {"p99", integer(skid.p99)},
                  {"max", integer(skid.max)},
                  {"samples", integer(skid.samples)}};
  if (skid.p99_high == 0) return out;
  out.insert("p50_low", integer(skid.p50_low));
  out.insert("p50_high", integer(skid.p50_high));
  out.insert("p99_low", integer(skid.p99_low));
  out.insert("p99_high", integer(skid.p99_high));
  return out;
}

toml::table tail_table(const TailStatistics& tail) {
  return toml::table{{"kind", tail.kind},
                     {"reach", integer(tail.reach)},
                     {"reach_low", integer(tail.reach_low)},
                     {"reach_high", integer(tail.reach_high)},
                     {"overshoot_probability", tail.overshoot_probability},
                     {"confidence", tail.confidence}};
}

toml::table tsc_table(const TscStatistics& tsc) {
  toml::table out{{"clock_source", tsc.clock_source}};
  for (const auto& [key, member] : kTscFigures) out.insert(key, tsc.*member);
  return out;
}

UserError cannot_write(const std::filesystem::path& path, int error_number) {
  return {"PMU-009",
          ExitCode::kUsage,
          fmt::format("cannot write the host profile {}", path.string()),
          std::strerror(error_number),
          "a place that can be written",
          "name another one with -o"};
}

}  // namespace

Result<HostProfile> parse_profile(std::string_view toml, const std::string& name) {
  toml::table root;
  try {
    root = toml::parse(toml, name);
  } catch (const toml::parse_error& error) {
    return profile_error("PMU-002", name,
                         fmt::format("line {}: {}", error.source().begin.line, error.description()),
                         "a TOML file");
  }
  return ProfileParser(root, name).parse();
}

Result<HostProfile> load_profile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text;
  if (file) {
    text.resize(kProfileBytesMax + 1);
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(file.gcount()));
  }
  if (!file.eof() || text.size() > kProfileBytesMax) {
    UserError error = profile_error(
        "PMU-001", path.string(),
        file.is_open() ? "a file that is no profile (too long?)" : std::strerror(errno),
        "a readable profile");
    return error;
  }
  return parse_profile(text, path.string());
}

std::string to_toml(const HostProfile& profile) {
  toml::table root{{"schema", kProfileSchema},
                   {"event", profile.event},
                   {"config", integer(profile.config)},
                   {"margin", integer(profile.margin)},
                   {"minimum_period", integer(profile.minimum_period)},
                   {"exact", profile.exact},
                   {"confidence", name_of(profile.confidence)},
                   {"date", profile.date}};
  root.get("config")->as_integer()->flags(toml::value_flags::format_as_hexadecimal);
  toml::array quirks;
  for (Quirk quirk : profile.quirks) quirks.push_back(std::string(info_of(quirk).name));
  root.insert("quirks", quirks);
  if (profile.step_ns) root.insert("step_ns", *profile.step_ns);
  if (profile.read_ns) root.insert("read_ns", *profile.read_ns);
  if (profile.arm_ns) root.insert("arm_ns", *profile.arm_ns);
  if (profile.trace_mb_per_s) root.insert("trace_mb_per_s", *profile.trace_mb_per_s);
  root.insert("host", host_table(profile.host));
  if (profile.skid) root.insert("skid", skid_table(*profile.skid));
  if (profile.tail) root.insert("tail", tail_table(*profile.tail));
  toml::table overcount;
  for (const auto& [probe, value] : profile.overcount) overcount.insert(probe, value);
  if (!overcount.empty()) root.insert("overcount", overcount);
  if (profile.tsc) root.insert("tsc", tsc_table(*profile.tsc));
  if (profile.model) root.insert("model", model_table(*profile.model));
  std::ostringstream out;
  out << root << "\n";
  return out.str();
}

Status save_profile(const HostProfile& profile, const std::filesystem::path& path) {
  DraftFile draft(path);
  draft.write(to_toml(profile));
  if (!draft.commit()) return cannot_write(path, draft.error());
  return Done{};
}

HostProfile default_model_profile() {
  HostProfile profile;
  profile.event = "model";
  profile.margin = 128;
  profile.exact = true;
  profile.confidence = Confidence::kModel;
  profile.host.cpu = "software processor";
  profile.model = ModelSettings{.skid = {.kind = SkidKind::kSkylake}};
  return profile;
}

ModelOptions model_options(const HostProfile& profile) {
  const ModelSettings settings = profile.model.value_or(ModelSettings{});
  return {.skid = settings.skid,
          .seed = settings.seed,
          .period_min = profile.minimum_period,
          .misbehaviour = settings.misbehaviour};
}

std::optional<UserError> refuse_to_record(const HostProfile& profile, const std::string& name) {
  for (Quirk quirk : profile.quirks) {
    const QuirkInfo& info = info_of(quirk);
    if (info.on_recording != QuirkEffect::kRefuse) continue;
    return UserError{"PMU-010",
                     ExitCode::kHostCannot,
                     "this host cannot record",
                     fmt::format("quirk {} in {}: {}", info.name, name, info.effect),
                     "a branch counter that is exact",
                     std::string(info.remedy)};
  }
  if (profile.confidence == Confidence::kMeasured && !profile.exact)
    return UserError{"PMU-010",
                     ExitCode::kHostCannot,
                     "this host cannot record",
                     fmt::format("exact = false in {}: its branch counter was measured, and "
                                 "miscounts for a reason unknown",
                                 name),
                     "a branch counter that is exact",
                     "measure again on a quiet host, or use another"};
  return std::nullopt;
}

std::optional<UserError> refuse_other_counter(const HostProfile& profile, LandsBy lands_by,
                                              const std::string& name) {
  if (lands_by == LandsBy::kModel) return std::nullopt;
  const bool steps = lands_by == LandsBy::kSteps;
  UserError error{.id = "PMU-023",
                  .exit_code = ExitCode::kIncompatible,
                  .what = fmt::format("the host profile {} is of another counter", name),
                  .needed = steps ? "one that was measured on a processor"
                                  : "one of the processor's counter, which the kvm backend uses",
                  .mend = fmt::format("measure this host: `understudy calibrate --backend kvm{} -o "
                                      "FILE`, or name no profile",
                                      steps ? " --kvm-steps" : "")};
  if (profile.model || profile.confidence == Confidence::kModel) {
    error.seen = profile.model ? "a [model] table" : "confidence = \"model\"";
    error.seen += ": it speaks of a counter that the software processor models";
    return error;
  }
  if (steps || profile.event != kStepsEvent) return std::nullopt;
  error.seen =
      fmt::format("event = \"{}\": it speaks of stepping, without any counter", kStepsEvent);
  return error;
}

}  // namespace us::pmu
