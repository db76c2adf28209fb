// `understudy calibrate compare A B`: has the host changed? `calibrate check FILE`: is it still the
// one that was measured?
#include <cstdio>

#include "calib/compare.h"
#include "pmu/host_identity.h"
#include "tools/calibrate.h"
#include "tools/session.h"
#include "tools/talk.h"

namespace us::tools {
namespace {

struct Options {
  std::string a, b;
  std::string backend = "perf";  // what is measured again where no counter is modelled
  bool json = false;
  uint64_t seed = 1;
};

int show(const std::vector<calib::Comparison>& rows, bool json) {
  if (json) {
    fmt::print("{}\n", calib::comparison_json(rows).dump(2));
  } else {
    fmt::print("{}", calib::comparison_text(rows));
  }
  return finish_output();
}

Result<int> compare(const Options& options) {
  auto a = pmu::load_profile(options.a);
  if (!a.ok()) return a.error();
  auto b = pmu::load_profile(options.b);
  if (!b.ok()) return b.error();
  const auto rows = calib::compare(*a, *b);
  if (const int code = show(rows, options.json); code != 0) return code;
  return static_cast<int>(calib::changed(rows) ? ExitCode::kIncompatible : ExitCode::kDone);
}

UserError no_longer(const std::string& name, const std::vector<calib::Comparison>& rows) {
  std::string seen;
  for (const calib::Comparison& row : rows)
    if (row.verdict == calib::Verdict::kChanged)
      seen += fmt::format("{}{}: {} -> {}", seen.empty() ? "" : "; ", row.what, row.was, row.is);
  return {.id = "CAL-004",
          .exit_code = ExitCode::kIncompatible,
          .what = fmt::format("the host is not as {} says", name),
          .seen = seen,
          .needed = "a host that behaves as when it was measured",
          .mend = fmt::format("measure it again: `understudy calibrate -o {}`", name)};
}

Result<int> check(const Options& options, const Globals& globals) {
  SignalWatch signals;
  std::atomic<bool> stop{false};
  auto profile = pmu::load_profile(options.a);
  if (!profile.ok()) return profile.error();
  if (auto foreign = pmu::refuse_foreign(*profile, pmu::this_host(), options.a)) return *foreign;
  CalibrateOptions asked{.backend = profile->model ? "soft" : options.backend,
                         .seed = options.seed};
  if (profile->model) asked.pmu_profile = options.a;
  if (profile->tail && profile->tail->overshoot_probability > 0) {
    asked.overshoot_probability = profile->tail->overshoot_probability;
    asked.confidence = profile->tail->confidence;
  }
  auto host = open_measured(asked);
  if (!host.ok()) return host.error();
  signals.on_stop([&stop] { stop = true; });
  auto now = measure(asked, *host, calib::Effort::kQuick, stop, globals);
  signals.on_stop({});
  if (!now.ok()) return now.error();
  const auto rows = calib::compare(*profile, now->profile);
  if (const int code = show(rows, options.json); code != 0) return code;
  if (calib::changed(rows)) return no_longer(options.a, rows);
  if (!now->complete) return static_cast<int>(ExitCode::kStoppedAtLimit);
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace

void add_calibrate_compare(CLI::App& verb, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* sub = verb.add_subcommand("compare", "whether two profiles speak of one host");
  sub->add_option("a", options->a, "a profile")->required();
  sub->add_option("b", options->b, "a later one")->required();
  sub->add_flag("--json", options->json, "one JSON document");
  sub->callback([options, &exit_code] {
    const auto result = compare(*options);
    exit_code = result.ok() ? *result : report(result.error());
  });
}

void add_calibrate_check(CLI::App& verb, const Globals& globals, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* sub = verb.add_subcommand("check", "measure quickly, and compare with a profile");
  sub->add_option("profile", options->a, "the host's profile")->required();
  sub->add_flag("--json", options->json, "one JSON document");
  sub->add_option("--backend", options->backend,
                  "what measured the counter then, and does now: perf, kvm")
      ->check(CLI::IsMember({"perf", "kvm"}));
  sub->add_option("--seed", options->seed, "of all that is drawn (1)");
  sub->callback([options, &globals, &exit_code] {
    const auto result = check(*options, globals);
    exit_code = result.ok() ? *result : report(result.error());
  });
}

}  // namespace us::tools
