#include "replay-engine/diverge/diverge.h"

#include <fmt/format.h>

#include "replay-engine/diverge/epoch_pass.h"
#include "replay-engine/diverge/log_compare.h"
#include "replay-engine/diverge/narrow.h"

namespace us::replay {
namespace {

bool has_counter(const Side& side) { return side.profile && side.profile->model; }

bool by_execution(const PassResult& pass) {
  return pass.outcome == PassOutcome::kDiffers || pass.outcome == PassOutcome::kEnded;
}

// The counters' pass first, as a replay would go; where they fail, their own finding is kept and
// the pass repeated by the processor's exact count, which cannot.
struct Executed {
  PassResult pass;
  std::optional<PassResult> counter;  // the pass that a counter ended
};

template <class Run>
Result<Executed> execute(bool counters, const Run& run) {
  Executed executed;
  auto first = run(PassOptions{.with_counter = counters});
  if (!first.ok()) return first.error();
  if (first->outcome == PassOutcome::kCounter) {
    executed.counter = std::move(first).value();
    first = run(PassOptions{.with_counter = false});
    if (!first.ok()) return first.error();
  }
  executed.pass = std::move(first).value();
  return executed;
}

void take_pass(DivergeReport& report, const PassResult& pass) {
  report.last_agreeing = pass.last_agreeing;
  report.first_differing = pass.first_differing;
  report.differs = pass.differs;
  report.epochs_compared = pass.epochs;
  report.counter_a = pass.counter_a;
  report.counter_b = pass.counter_b;
  report.error = pass.error ? pass.error : pass.log_error;
  if (pass.trace.compared != 0) report.trace = pass.trace;
  report.landings_a = pass.landings_a;
  report.landings_b = pass.landings_b;
  if (!pass.detail.empty()) report.notes.push_back(pass.detail);
}

// Where both executions agree to the end, a counter or the traces may still have something to say.
void judge_equal(DivergeReport& report, const Executed& executed) {
  const TraceFinding& trace = report.trace;
  if (executed.counter) {
    take_pass(report, *executed.counter);
    report.verdict = DivergeVerdict::kCounter;
    report.notes.push_back("landing by the processor's own exact count, the sides agree");
  } else if (trace.first_differing) {
    report.verdict = DivergeVerdict::kControlFlow;
    report.confidence = Confidence::kRecorded;
    report.first_differing = {.epoch = *trace.first_differing};
    report.differs = "trace";
  } else if (trace.first_counter_mismatch) {
    report.verdict = DivergeVerdict::kCounter;
    report.confidence = Confidence::kRecorded;
    report.first_differing = {.epoch = *trace.first_counter_mismatch};
    report.differs = "branch count against trace";
  } else if (trace.unknown != 0) {
    report.verdict = DivergeVerdict::kUnknown;
  }
}

void judge(DivergeReport& report, const Executed& executed) {
  const PassResult& pass = executed.pass;
  take_pass(report, pass);
  switch (pass.outcome) {
    case PassOutcome::kStopped:
      report.verdict = DivergeVerdict::kUnknown;
      report.notes.push_back("stopped on request before the end");
      return;
    case PassOutcome::kEqual: judge_equal(report, executed); break;
    case PassOutcome::kRecordedA:
    case PassOutcome::kRecordedB:
      report.confidence = Confidence::kRecorded;
      report.verdict =
          pass.differs == "position" ? DivergeVerdict::kControlFlow : DivergeVerdict::kState;
      if (report.trace.first_differing &&
          *report.trace.first_differing <= report.first_differing.epoch)
        report.verdict = DivergeVerdict::kControlFlow;
      break;
    case PassOutcome::kEnded: report.verdict = DivergeVerdict::kEnded; break;
    default: report.verdict = DivergeVerdict::kState; break;
  }
  if (pass.log_error) report.verdict = DivergeVerdict::kDamaged;
}

// A place in logs that differ comes before what it leads to.
void judge_logs(DivergeReport& report, const LogComparison& logs) {
  if (logs.input &&
      (!is_difference(report.verdict) || logs.input->epoch <= report.first_differing.epoch)) {
    const bool ended = report.verdict == DivergeVerdict::kEnded;
    if (!ended) report.verdict = DivergeVerdict::kInput;
    report.input = logs.input;
    report.first_differing = {.epoch = logs.input->epoch,
                              .point = logs.input->at_a.branches < logs.input->at_b.branches
                                           ? logs.input->at_a
                                           : logs.input->at_b};
    report.log_a = logs.context_a;
    report.log_b = logs.context_b;
  }
  if (logs.damage &&
      (!is_difference(report.verdict) || report.verdict == DivergeVerdict::kDamaged ||
       report.first_differing.epoch > logs.damage->after_epoch)) {
    report.verdict = DivergeVerdict::kDamaged;
    report.error = logs.damage->error;
    report.first_differing = {.epoch = logs.damage->after_epoch + 1};
    report.differs = fmt::format("the log of {}", logs.damage->in_a ? "a" : "b");
  }
}

void name_places(DivergeReport& report, const Symbols& symbols) {
  const auto name = [&](Place& place) { place.symbol = symbols.at(place.point.rip); };
  const auto name_path = [&](std::vector<PathStep>& path) {
    for (PathStep& step : path) step.code.symbol = symbols.at(step.point.rip);
  };
  name(report.last_agreeing);
  name(report.first_differing);
  if (report.effect) report.effect->symbol = symbols.at(report.effect->before.rip);
  if (!report.fork) return;
  report.fork->symbol = symbols.at(report.fork->at.rip);
  name_path(report.fork->before);
  name_path(report.fork->after_a);
  name_path(report.fork->after_b);
}

void take_narrowed(DivergeReport& report, Narrowed narrowed) {
  report.effect = std::move(narrowed.effect);
  report.fork = std::move(narrowed.fork);
  report.repetition = narrowed.repetition;
  if (narrowed.symbols != nullptr) name_places(report, *narrowed.symbols);
  for (std::string& note : narrowed.notes) report.notes.push_back(std::move(note));
  if (report.verdict == DivergeVerdict::kState && report.fork &&
      report.fork->at.branches <= report.first_differing.point.branches)
    report.verdict = DivergeVerdict::kControlFlow;
}

const char* kind_text(DivergeVerdict verdict) {
  switch (verdict) {
    case DivergeVerdict::kEqual: return "no difference";
    case DivergeVerdict::kUnknown:
      return "no difference found, but not everything could be compared";
    case DivergeVerdict::kInput: return "the logs differ";
    case DivergeVerdict::kControlFlow: return "control flow differs";
    case DivergeVerdict::kState: return "state differs on the same path";
    case DivergeVerdict::kEnded: return "one side ends where the other goes on";
    case DivergeVerdict::kCounter: return "the branch counter is at fault";
    case DivergeVerdict::kDamaged: return "a log is damaged";
  }
  return "";
}

void write_headline(DivergeReport& report) {
  report.headline = kind_text(report.verdict);
  if (report.verdict == DivergeVerdict::kEqual || report.verdict == DivergeVerdict::kUnknown) {
    report.headline += fmt::format(", {} epochs compared", report.epochs_compared);
    return;
  }
  report.headline += fmt::format(" in epoch {}", report.first_differing.epoch);
  if (report.input) report.headline += ": " + report.input->what;
  if (!report.differs.empty() && !report.input)
    report.headline += fmt::format(" ({})", report.differs);
  report.headline += report.confidence == Confidence::kReproduced
                         ? "; reproduced"
                         : "; as recorded, not seen when executed again";
}

void finish(DivergeReport& report, const LogComparison& logs, const Side& a, const Side* b) {
  for (const std::string& note : logs.notes) report.log_notes.push_back(note);
  if (logs.end_a) report.branches_in_all = logs.end_a->branches;
  if (is_difference(report.verdict) && report.log_a.lines.empty()) {
    report.log_a = log_context(a, report.first_differing.epoch);
    if (b != nullptr) report.log_b = log_context(*b, report.first_differing.epoch);
  }
  for (const Side* side : {&a, b})
    if (side != nullptr)
      for (const Fault& fault : side->plan)
        report.planted.push_back((side == &a ? "a: " : "b: ") + to_text(fault));
  write_headline(report);
  rank_causes(report);
}

}  // namespace

Result<DivergeReport> compare_sides(const Side& a, const Side& b, const DivergeOptions& options) {
  DivergeReport report{.name_a = a.name, .name_b = b.name};
  auto logs = compare_logs(a, b);
  if (!logs.ok()) return logs.error();
  report.trace = logs->trace;
  auto executed = execute(has_counter(a) || has_counter(b),
                          [&](const PassOptions& pass) { return run_epochs(a, b, pass, options); });
  if (!executed.ok()) return executed.error();
  judge(report, *executed);
  judge_logs(report, *logs);
  if (by_execution(executed->pass)) {
    auto narrowed = narrow(a, b, executed->pass, options);
    if (!narrowed.ok()) return narrowed.error();
    take_narrowed(report, std::move(narrowed).value());
  } else if (report.confidence == Confidence::kRecorded &&
             executed->pass.outcome != PassOutcome::kEqual) {
    const bool in_a = executed->pass.outcome == PassOutcome::kRecordedA;
    auto again = repeat_against_log(in_a ? a : b, executed->pass, options);
    if (!again.ok()) return again.error();
    report.repetition = *again;
  }
  finish(report, *logs, a, &b);
  return report;
}

Result<DivergeReport> compare_with_itself(const Side& a, const DivergeOptions& options) {
  DivergeReport report{.name_a = a.name, .name_b = a.name + ", executed here"};
  report.against_itself = true;
  auto logs = compare_logs(a, a);
  if (!logs.ok()) return logs.error();
  auto executed = execute(has_counter(a),
                          [&](const PassOptions& pass) { return run_epochs(a, pass, options); });
  if (!executed.ok()) return executed.error();
  judge(report, *executed);
  judge_logs(report, *logs);
  if (report.confidence == Confidence::kRecorded &&
      executed->pass.outcome == PassOutcome::kRecordedA) {
    auto again = repeat_against_log(a, executed->pass, options);
    if (!again.ok()) return again.error();
    report.repetition = *again;
  }
  finish(report, *logs, a, nullptr);
  return report;
}

}  // namespace us::replay
