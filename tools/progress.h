// One line on the terminal that says how far long work is. Nothing where stderr is no terminal.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "replay-engine/run_loop.h"
#include "tools/verbs.h"

namespace us::tools {

// "replay: instruction 1.2 G, 43% of the log, 310 M/s, 12 s left". `done` is the part done, 0 to 1,
// where it is known; `of` what it is a part of.
std::string progress_text(const std::string& verb, uint64_t instructions, double per_second,
                          std::optional<double> done, const std::string& of,
                          double elapsed_seconds);

class ProgressLine {
 public:
  // `shown` false: never. Quiet, or stderr no terminal: never either.
  ProgressLine(const Globals& globals, bool shown);
  ~ProgressLine() { clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // Whether it is time for another one: four times a second.
  bool due();
  void show(const std::string& text);
  // Takes the line away, before other text goes to the same terminal.
  void clear();
  // While held, none is due: somebody else's line on the terminal is not finished.
  void hold(bool held) { held_ = held; }

 private:
  using Clock = std::chrono::steady_clock;
  const bool shown_;
  bool visible_ = false;
  bool held_ = false;
  Clock::time_point next_;
};

// Passes everything on to another observer and shows how far the run is.
class ProgressObserver final : public replay::InputObserver {
 public:
  // `done` is asked when a line is due. All outlive it.
  ProgressObserver(std::string verb, replay::InputObserver& inner, ProgressLine& line,
                   std::function<std::optional<double>()> done, std::string of);

  bool before_apply(hv::Machine& machine, const replay::StampedInput& input,
                    replay::EndOfInputs& why) override;
  bool at_epoch(hv::Machine& machine, const replay::EpochCheck& check,
                replay::EndOfInputs& why) override;

 private:
  using Clock = std::chrono::steady_clock;
  void look(hv::Machine& machine);

  const std::string verb_, of_;
  replay::InputObserver& inner_;
  ProgressLine& line_;
  std::function<std::optional<double>()> done_;
  const Clock::time_point started_ = Clock::now();
  Clock::time_point last_ = started_;
  uint64_t last_instructions_ = 0;
};

}  // namespace us::tools
