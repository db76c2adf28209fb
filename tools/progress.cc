#include "tools/progress.h"

#include <algorithm>
#include <cstdio>
#include <unistd.h>

namespace us::tools {
namespace {

constexpr auto kPeriod = std::chrono::milliseconds(250);
constexpr double kSaysSomething = 0.005;  // a smaller part done foretells nothing

// "950", "1.2 M", "34 G"
std::string short_number(double n) {
  for (const char* unit : {"", " k", " M", " G"}) {
    const int digits = n < 10 && *unit != 0 ? 1 : 0;
    if (n < 1000) return fmt::format("{:.{}f}{}", n, digits, unit);
    n /= 1000;
  }
  return fmt::format("{:.1f} T", n);
}

std::string duration(double seconds) {
  const auto s = static_cast<uint64_t>(seconds + 0.5);
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} min {} s", s / 60, s % 60);
  return fmt::format("{} h {} min", s / 3600, s / 60 % 60);
}

}  // namespace

std::string progress_text(const std::string& verb, uint64_t instructions, double per_second,
                          std::optional<double> done, const std::string& of,
                          double elapsed_seconds) {
  std::string text =
      fmt::format("{}: instruction {}", verb, short_number(static_cast<double>(instructions)));
  if (done) text += fmt::format(", {:.0f}% of {}", *done * 100, of);
  text += fmt::format(", {}/s", short_number(per_second));
  if (done && *done > kSaysSomething)
    text += fmt::format(", {} left", duration(elapsed_seconds * (1 - *done) / *done));
  return text;
}

ProgressLine::ProgressLine(const Globals& globals, bool shown)
    : shown_(shown && !globals.quiet && ::isatty(STDERR_FILENO) == 1),
      next_(Clock::now() + kPeriod) {}

bool ProgressLine::due() {
  if (!shown_ || held_) return false;
  const Clock::time_point now = Clock::now();
  if (now < next_) return false;
  next_ = now + kPeriod;
  return true;
}

void ProgressLine::show(const std::string& text) {
  fmt::print(stderr, "\r{}\x1b[K", text);
  std::fflush(stderr);
  visible_ = true;
}

void ProgressLine::clear() {
  if (!visible_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  visible_ = false;
}

ProgressObserver::ProgressObserver(std::string verb, replay::InputObserver& inner,
                                   ProgressLine& line, std::function<std::optional<double>()> done,
                                   std::string of)
    : verb_(std::move(verb)),
      of_(std::move(of)),
      inner_(inner),
      line_(line),
      done_(std::move(done)) {}

bool ProgressObserver::before_apply(hv::Machine& machine, const replay::StampedInput& input,
                                    replay::EndOfInputs& why) {
  look(machine);
  return inner_.before_apply(machine, input, why);
}

bool ProgressObserver::at_epoch(hv::Machine& machine, const replay::EpochCheck& check,
                                replay::EndOfInputs& why) {
  look(machine);
  return inner_.at_epoch(machine, check, why);
}

void ProgressObserver::look(hv::Machine& machine) {
  if (!line_.due()) return;
  const Clock::time_point now = Clock::now();
  const uint64_t instructions = machine.point().instructions.value;
  const double since = std::chrono::duration<double>(now - last_).count();
  const double rate =
      static_cast<double>(instructions - last_instructions_) / std::max(since, 1e-3);
  last_ = now;
  last_instructions_ = instructions;
  auto done = done_ ? done_() : std::nullopt;
  if (done) done = std::clamp(*done, 0.0, 1.0);
  line_.show(progress_text(verb_, instructions, rate, done, of_,
                           std::chrono::duration<double>(now - started_).count()));
}

}  // namespace us::tools
