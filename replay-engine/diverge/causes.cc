// Rules that turn what was found into likely causes, each with its evidence and the next command.
#include <algorithm>
#include <fmt/format.h>

#include "replay-engine/diverge/report.h"

namespace us::replay {
namespace {

class Ranking {
 public:
  explicit Ranking(DivergeReport& report) : r_(report) {}

  void run() {
    by_log();
    by_counter();
    by_trace();
    by_confidence();
    by_effect();
    by_environment();
    std::stable_sort(r_.causes.begin(), r_.causes.end(),
                     [](const Cause& a, const Cause& b) { return a.weight > b.weight; });
  }

 private:
  void add(int weight, std::string cause, std::string evidence, std::string next) {
    r_.causes.push_back({std::move(cause), std::move(evidence), std::move(next), weight});
  }

  void by_log() {
    if (r_.verdict == DivergeVerdict::kDamaged)
      add(100, "the recording is damaged on disk or was cut",
          r_.error ? r_.error->what + ": " + r_.error->seen : "a log that cannot be read",
          "understudy log verify DIR");
    if (!r_.input) return;
    const bool moved = r_.input->what.find("the same ") == 0;
    add(90,
        moved ? "an input was applied at another place"
              : "an input is missing, doubled or changed in one of the logs",
        r_.input->what,
        fmt::format("understudy log dump DIR --from {} --count 10",
                    r_.input->ordinal > 5 ? r_.input->ordinal - 5 : 0));
  }

  void by_counter() {
    if (r_.verdict != DivergeVerdict::kCounter) return;
    if (r_.error)
      add(100, "the branch counter cannot be relied on: " + r_.error->what, r_.error->seen,
          r_.error->mend);
    else
      add(100, "branch counter and trace disagree on how many branches there were", r_.trace.text,
          "understudy calibrate -o host.toml");
  }

  void by_trace() {
    if (r_.trace.unknown != 0)
      add(5, "the processor trace was lost in places, states were compared instead",
          fmt::format("{} of {} epochs, the first is {}", r_.trace.unknown, r_.trace.compared,
                      r_.trace.first_unknown.value_or(0)),
          "larger trace buffers, or fewer other loads on that host");
  }

  void by_confidence() {
    if (r_.verdict == DivergeVerdict::kEqual && !r_.log_notes.empty())
      add(80,
          "a fault that passed, on the host that kept the log: its memory, its processor or its "
          "counter",
          "it noted: " + r_.log_notes.front().substr(0, r_.log_notes.front().find('\n')) +
              "; executed here, everything agrees with the log",
          "a memory test of that host");
    if (!is_difference(r_.verdict) || r_.confidence == Confidence::kReproduced) return;
    const Repetition& again = r_.repetition;
    if (again.runs != 0 && again.gone == again.runs)
      add(80,
          "a fault that passed: memory or processor of this host while it executed the first time",
          fmt::format("{} of {} further executions agree with the log", again.gone, again.runs),
          "a memory test of this host");
    else if (again.elsewhere != 0)
      add(85, "the execution here is not deterministic",
          fmt::format("{} of {} further executions end elsewhere", again.elsewhere, again.runs),
          "understudy diverge DIR --repeat 10, then a report with its bundle");
    else
      add(70,
          "what was recorded is not what this build computes: memory or processor of the "
          "recording host, or another build",
          fmt::format("{} of {} further executions end in the same place, away from the log",
                      again.same, again.runs),
          "the same command on another host; then `understudy version` on both");
  }

  void by_effect() {
    if (!r_.effect) return;
    const FirstEffect& e = *r_.effect;
    const auto starts = [&](const char* text) { return e.code.text.find(text) == 0; };
    const std::string here = fmt::format("{} at {:#x}", e.code.text, e.before.rip);
    if (starts("rdtsc"))
      add(75, "a reading of the time stamp counter differs", here,
          "compare the anchors before it: understudy log dump DIR --type anchor");
    else if (starts("cpuid"))
      add(75, "the processor describes itself differently", here,
          "the same build and processor model on both sides");
    else if (starts("rdrand") || starts("rdseed") || starts("in "))
      add(65, "a source of input that is not logged", here, "a report with the bundle");
    if (r_.fork && r_.fork->kind == ForkKind::kEvent && r_.fork->at == e.before) {
      add(78, "an interrupt or exception comes on one side and not, or elsewhere, on the other",
          fmt::format("at {:#x}: a goes to {:#x}, b to {:#x}", r_.fork->at.rip, r_.fork->to_a,
                      r_.fork->to_b),
          "compare the inputs before it: understudy log dump DIR");
      return;
    }
    const auto& pages = e.state.pages;
    if (e.differs == "memory" && pages.size() == 1 && e.state.pages_in_all == 1 &&
        pages[0].bytes == 1)
      add(72, "one byte of memory changed by itself: memory of a host, or a stray write of the VMM",
          fmt::format("page {:#x}, byte {:#x}: {} against {}", pages[0].address, pages[0].first,
                      pages[0].a, pages[0].b),
          "a memory test of both hosts");
    else if (e.differs.find("devices") == 0)
      add(60, "a device model differs", e.state.devices.empty() ? here : e.state.devices[0],
          "a report with the bundle");
    else
      add(50, "an instruction has another result", here, "a report with the bundle");
  }

  void by_environment() {
    if (!is_difference(r_.verdict)) return;
    std::string rows;
    for (const EnvironmentRow& row : r_.environment)
      if (row.a != row.b) rows += (rows.empty() ? "" : ", ") + row.name;
    if (!rows.empty())
      add(30, "the two sides were made in different surroundings", rows,
          "the same build on both sides");
  }

  DivergeReport& r_;
};

}  // namespace

const char* name_of(DivergeVerdict verdict) {
  switch (verdict) {
    case DivergeVerdict::kEqual: return "equal";
    case DivergeVerdict::kUnknown: return "unknown";
    case DivergeVerdict::kInput: return "input-differs";
    case DivergeVerdict::kControlFlow: return "control-flow-differs";
    case DivergeVerdict::kState: return "state-differs";
    case DivergeVerdict::kEnded: return "ended-early";
    case DivergeVerdict::kCounter: return "counter-at-fault";
    case DivergeVerdict::kDamaged: return "log-damaged";
  }
  return "";
}

bool is_difference(DivergeVerdict verdict) {
  return verdict != DivergeVerdict::kEqual && verdict != DivergeVerdict::kUnknown;
}

void rank_causes(DivergeReport& report) {
  report.causes.clear();
  Ranking(report).run();
}

}  // namespace us::replay
