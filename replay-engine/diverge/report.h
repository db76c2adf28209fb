// What `understudy diverge` found, as values; report_text.cc and report_json.cc print it.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "hv/core/execution_point.h"
#include "replay-engine/diverge/guest_view.h"
#include "replay-engine/diverge/state_diff.h"

namespace us::replay {

enum class DivergeVerdict : uint8_t {
  kEqual,        // no difference found
  kUnknown,      // no difference found, but the trace was lost in some epochs: states agree
  kInput,        // the logs tell the two sides different things
  kControlFlow,  // the same inputs, another path
  kState,        // the same path, other contents of registers, devices or memory
  kEnded,        // one side ended, or went idle, where the other did not
  kCounter,      // the branch counter (or the trace) is at fault, not the guest
  kDamaged,      // a log cannot be read past a place
};
const char* name_of(DivergeVerdict verdict);  // "equal", "unknown", "input-differs", …
bool is_difference(DivergeVerdict verdict);

// How sure the verdict is.
enum class Confidence : uint8_t {
  kReproduced,  // both sides were executed again and part at the place named
  kRecorded,    // the recordings say so, but executing again does not show it
};

struct Place {
  uint64_t epoch = 0;  // the epoch that ends at or holds this place
  hv::ExecutionPoint point;
  std::string symbol{};
  unsigned privilege = 0;  // CPL, where known
};

struct PathStep {
  hv::ExecutionPoint point;  // before it
  CodeLine code;
  bool event = false;  // not the instruction: an interrupt or fault was delivered here
};

enum class ForkKind : uint8_t {
  kConditional,  // taken here and not there
  kIndirect,     // another target
  kEvent,        // an interrupt or exception here and not there
  kOther,        // other code at the same address
};
const char* name_of(ForkKind kind);

// The first place where the paths part.
struct Fork {
  ForkKind kind = ForkKind::kOther;
  uint64_t ordinal = 0;  // a conditional branch's number since the guest's start, counted from 1;
                         // else how many retired before
  hv::ExecutionPoint at;
  std::string symbol{};
  CodeLine code;
  uint64_t to_a = 0, to_b = 0;
  bool taken_a = false, taken_b = false;  // kEvent: delivered
  std::vector<PathStep> before, after_a, after_b;
  // What the processor traces of both sides, decoded by libipt, say to it.
  std::optional<bool> decoded_agrees = std::nullopt;
  std::string decoded{};
};

// Where states first differ, to the instruction.
struct FirstEffect {
  hv::ExecutionPoint before;  // both stood here, equal
  hv::ExecutionPoint after_a, after_b;
  CodeLine code;
  std::string symbol{};
  std::string differs;  // "registers, memory"
  StateDifference state;
};

// A stretch of a log around the place, one line a record.
struct LogContext {
  std::vector<std::string> lines;
  std::optional<size_t> marked;  // the line that has no equal on the other side
};

struct InputDifference {
  uint64_t ordinal = 0;  // of the record among those that are no sections and no trace digests
  uint64_t epoch = 0;
  hv::ExecutionPoint at_a, at_b;  // zeros where the side has no further record
  std::string what;
};

struct TraceFinding {
  uint64_t compared = 0, unknown = 0, counter_mismatches = 0;  // epochs
  std::optional<uint64_t> first_unknown, first_counter_mismatch, first_differing;
  std::optional<uint64_t> last_compared, last_unknown;  // so that none counts twice
  std::string text{};                                   // of the first that differs or mismatches
  uint64_t branch_first = 0, branch_end = 0;            // ordinals, where stream T says so; else 0
};

struct Repetition {
  unsigned runs = 0, same = 0, elsewhere = 0, gone = 0;
};

// One landing of a counter, for timelines.
struct LandingSample {
  uint64_t branches = 0;
  uint64_t steps = 0;
};
constexpr size_t kLandingSamplesMax = 100'000;

struct EnvironmentRow {
  std::string name, a, b, here;
};

struct Cause {
  std::string cause, evidence, next;  // next: a command, or what to do
  int weight = 0;                     // for ranking
};

struct DivergeReport {
  DivergeVerdict verdict = DivergeVerdict::kEqual;
  Confidence confidence = Confidence::kReproduced;
  std::string headline;
  std::string name_a, name_b;
  bool against_itself = false;  // b is a's own execution here
  Place last_agreeing, first_differing;
  std::string differs;  // at the first differing epoch
  uint64_t epochs_compared = 0;
  std::optional<uint64_t> branches_in_all;  // of a's log, for a percentage
  std::optional<FirstEffect> effect;
  std::optional<Fork> fork;
  std::optional<InputDifference> input;
  TraceFinding trace;
  LogContext log_a, log_b;
  std::string counter_a, counter_b;  // health of what landed
  std::optional<UserError> error;    // of a counter or a damaged log
  Repetition repetition;
  std::vector<EnvironmentRow> environment;
  std::vector<LandingSample> landings_a, landings_b;  // of the first pass, up to the divergence
  std::vector<std::string> planted;
  std::vector<std::string> notes;
  std::vector<std::string> log_notes;  // what the logs' writers noted in them
  std::vector<Cause> causes;           // likeliest first
};

std::string to_text(const DivergeReport& report);
nlohmann::json to_json(const DivergeReport& report);
// Fills in `causes` from everything else.
void rank_causes(DivergeReport& report);

}  // namespace us::replay
