#include <fmt/format.h>

#include "replay-engine/diverge/report.h"

namespace us::replay {
namespace {

class Text {
 public:
  explicit Text(const DivergeReport& report) : r_(report) {}

  std::string all() {
    line("{}: {}", name_of(r_.verdict), r_.headline);
    line("  a: {}", r_.name_a);
    line("  b: {}", r_.name_b);
    for (const std::string& fault : r_.planted) line("  planted: {}", fault);
    if (r_.error) out_ += r_.error->text() + "\n";
    where();
    effect();
    fork();
    input();
    trace();
    if (r_.log_a.lines == r_.log_b.lines) {
      log("The log of both", r_.log_a);
    } else {
      log("The log of a", r_.log_a);
      log("The log of b", r_.log_b);
    }
    health();
    environment();
    causes();
    return std::move(out_);
  }

 private:
  template <class... A>
  void line(fmt::format_string<A...> format, A&&... args) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<A>(args)...);
    out_ += '\n';
  }
  void head(const char* title) { line("\n{}", title); }

  static std::string at(const hv::ExecutionPoint& p) {
    return fmt::format("branch {}, instruction {}, rip {:#x}", p.branches.value,
                       p.instructions.value, p.rip);
  }
  static std::string in(const std::string& symbol) {
    return symbol.empty() ? "" : " <" + symbol + ">";
  }

  void where() {
    head("Where");
    line("  last agreeing    {}{}{}",
         r_.last_agreeing.epoch == 0 ? "the start"
                                     : fmt::format("end of epoch {}", r_.last_agreeing.epoch),
         r_.last_agreeing.point == hv::ExecutionPoint{} ? "" : ": " + at(r_.last_agreeing.point),
         in(r_.last_agreeing.symbol));
    if (is_difference(r_.verdict)) {
      const bool known = !(r_.first_differing.point == hv::ExecutionPoint{});
      line("  first differing  epoch {}{}{}{}", r_.first_differing.epoch,
           known ? ": " + at(r_.first_differing.point) : "", in(r_.first_differing.symbol),
           r_.differs.empty() ? "" : "; " + r_.differs);
      if (known && r_.first_differing.point.branches >= r_.last_agreeing.point.branches)
        line("  between them     {} branches, {} instructions{}",
             (r_.first_differing.point.branches - r_.last_agreeing.point.branches).value,
             (r_.first_differing.point.instructions - r_.last_agreeing.point.instructions).value,
             percent());
    }
    for (const std::string& note : r_.log_notes) line("  noted in a log   {}", note);
    for (const std::string& note : r_.notes) line("  note             {}", note);
  }

  std::string percent() const {
    if (!r_.branches_in_all || *r_.branches_in_all == 0) return "";
    return fmt::format("; at {:.2f} % of the recording",
                       100.0 * static_cast<double>(r_.first_differing.point.branches.value) /
                           static_cast<double>(*r_.branches_in_all));
  }

  void effect() {
    if (!r_.effect) return;
    const FirstEffect& e = *r_.effect;
    head("What differs first");
    line("  {}{}: {}", at(e.before), in(e.symbol), e.code.text);
    line("  after it: {}", e.differs.empty() ? "position" : e.differs);
    if (!e.state.registers.empty())
      line("  {:<8} {:>18} {:>18} {:>18}", "register", "a", "b", "xor");
    for (const RegisterDifference& d : e.state.registers)
      line("  {:<8} {:>#18x} {:>#18x} {:>#18x}{}", d.name, d.a, d.b, d.a ^ d.b,
           d.detail.empty() ? "" : "  " + d.detail);
    for (const PageDifference& p : e.state.pages)
      line("  page {:#x}: {} bytes from {:#x} to {:#x}: {} | {}", p.address, p.bytes, p.first,
           p.last, p.a, p.b);
    if (e.state.pages_in_all > e.state.pages.size())
      line("  and {} pages more", e.state.pages_in_all - e.state.pages.size());
    if (e.state.registers.empty())
      for (const std::string& text : e.state.processor) line("  processor {}", text);
    for (const std::string& text : e.state.devices) line("  device {}", text);
  }

  void path(const std::vector<PathStep>& steps) {
    for (const PathStep& step : steps)
      line("    {:>12} {:#018x}{}  {}", step.point.instructions.value, step.point.rip,
           in(step.code.symbol), step.event ? "(takes an interrupt or exception)" : step.code.text);
  }

  void fork() {
    if (!r_.fork) {
      if (r_.trace.branch_end != 0)
        line("\nFirst differing branch: one of the conditional branches {} to {}",
             r_.trace.branch_first, r_.trace.branch_end - 1);
      return;
    }
    const Fork& f = *r_.fork;
    head("Where the paths part");
    switch (f.kind) {
      case ForkKind::kConditional:
        line("  conditional branch {} at {:#x}{}: {}", f.ordinal, f.at.rip, in(f.symbol),
             f.code.text);
        line("  a {}, b {}", f.taken_a ? "takes it" : "falls through",
             f.taken_b ? "takes it" : "falls through");
        break;
      case ForkKind::kEvent:
        line("  an interrupt or exception at {:#x}{}, after branch {} and instruction {}", f.at.rip,
             in(f.symbol), f.ordinal, f.at.instructions.value);
        line("  a {}, b {}", f.taken_a ? fmt::format("takes it to {:#x}", f.to_a) : "does not",
             f.taken_b ? fmt::format("takes it to {:#x}", f.to_b) : "does not");
        break;
      default:
        line("  {} at {:#x}{}, after branch {} and instruction {}: {}", name_of(f.kind), f.at.rip,
             in(f.symbol), f.ordinal, f.at.instructions.value, f.code.text);
        line("  a goes to {:#x}, b to {:#x}", f.to_a, f.to_b);
    }
    if (!f.decoded.empty()) line("  {}", f.decoded);
    line("  before, on both sides:");
    path(f.before);
    line("  a goes on:");
    path(f.after_a);
    line("  b goes on:");
    path(f.after_b);
  }

  void input() {
    if (!r_.input) return;
    head("The logs");
    line("  record {}: {}", r_.input->ordinal, r_.input->what);
  }

  void trace() {
    if (r_.trace.compared == 0) return;
    head("Processor trace");
    line("  {} epochs compared, {} unknown, {} where trace and counter disagree", r_.trace.compared,
         r_.trace.unknown, r_.trace.counter_mismatches);
    if (!r_.trace.text.empty()) line("  {}", r_.trace.text);
  }

  void log(const char* title, const LogContext& context) {
    if (context.lines.empty()) return;
    head(title);
    for (size_t i = 0; i < context.lines.size(); ++i)
      line("{} {}", context.marked == i ? ">" : " ", context.lines[i]);
  }

  void health() {
    if (!is_difference(r_.verdict)) return;
    head("How sure");
    if (!r_.counter_a.empty()) line("  counter of a     {}", r_.counter_a);
    if (!r_.counter_b.empty()) line("  counter of b     {}", r_.counter_b);
    if (r_.repetition.runs != 0)
      line("  executed again   {} times: {} the same, {} elsewhere, {} gone", r_.repetition.runs,
           r_.repetition.same, r_.repetition.elsewhere, r_.repetition.gone);
  }

  void environment() {
    if (r_.environment.empty() || !is_difference(r_.verdict)) return;
    head("Surroundings");
    for (const EnvironmentRow& row : r_.environment)
      line("  {:<16} a: {}; b: {}; here: {}", row.name, row.a, row.b, row.here);
  }

  void causes() {
    if (r_.causes.empty()) return;
    head("Likely causes");
    for (size_t i = 0; i < r_.causes.size(); ++i) {
      line("  {}. {}", i + 1, r_.causes[i].cause);
      line("     seen: {}", r_.causes[i].evidence);
      line("     next: {}", r_.causes[i].next);
    }
  }

  const DivergeReport& r_;
  std::string out_;
};

}  // namespace

std::string to_text(const DivergeReport& report) { return Text(report).all(); }

}  // namespace us::replay
