#include "replay-engine/pair/live_observer.h"

#include <algorithm>
#include <thread>

#include "replay-engine/record_convert.h"

namespace us::replay {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

// Pages a piece, at one piece an input: the guest keeps most of its time. One that writes faster
// than they go gets less and less of it.
constexpr size_t kPagesAPiece = 256;
constexpr size_t kPagesAPieceLate = 2048;
constexpr unsigned kLateRound = 4;
// What may be left when the guest is stopped for the rest: a few milliseconds' worth.
constexpr uint64_t kPagesAtEnd = 768;
constexpr unsigned kRoundsMost = 12;
constexpr size_t kSectionBytes = 1 << 20;

// Records that no output waits for may be collected so long.
constexpr nanoseconds kFlushPeriod = std::chrono::microseconds(500);
constexpr nanoseconds kNapMost = milliseconds(20);

log::Record marker_at(hv::Machine& machine) {
  const hv::ExecutionPoint point = machine.point();
  log::Record marker{
      .at = {.branches = point.branches.value,
             .rip = point.rip,
             .rcx = std::nullopt,
             .instructions = point.instructions.value,
             .tie = std::nullopt},
      .body = log::Marker{log::MarkerKind::kGoLive, 0, "the secondary may go live from here"}};
  add_tie(machine, marker.at);
  return marker;
}

}  // namespace

LiveObserver::LiveObserver(LiveSide& side, OutputGate& gate, std::vector<NamedSection> sections,
                           std::function<nanoseconds()> now, GuestProgress& progress,
                           WitnessOptions witness)
    : side_(side),
      gate_(gate),
      sections_(std::move(sections)),
      now_(std::move(now)),
      progress_(progress),
      witness_options_(std::move(witness)) {}

void GuestProgress::set(hv::Machine& machine) {
  const hv::ExecutionPoint point = machine.point();
  branches = point.branches.value;
  instructions = point.instructions.value;
  guest_ticks = machine.now().value;
}

bool LiveObserver::before_apply(hv::Machine& machine, const StampedInput& input, EndOfInputs& why) {
  if (!service(machine, why)) return false;
  if (!recorder_) return unlogged();
  if (!recorder_->before_apply(machine, input, why)) return false;
  wrote();
  return true;
}

bool LiveObserver::at_epoch(hv::Machine& machine, const EpochCheck& check, EndOfInputs& why) {
  if (!service(machine, why)) return false;
  if (!recorder_) return unlogged();
  if (!recorder_->at_epoch(machine, check, why)) return false;
  wrote();
  return true;
}

// No log: what waits meanwhile waits for the arbiter's word, not for a record.
bool LiveObserver::unlogged() {
  gate_.close_batch(LogPosition(~uint64_t{0}));
  return true;
}

// A record was written: outputs before it wait for its acknowledgement, and do not wait for
// company.
void LiveObserver::wrote() {
  const nanoseconds now = now_();
  const bool awaited = gate_.close_batch(log_->position());
  if (!awaited && now - last_flush_ < kFlushPeriod) return;
  log_->send_now();
  last_flush_ = now;
  side_.appended(now, log_);
}

bool LiveObserver::service(hv::Machine& machine, EndOfInputs& why) {
  progress_.set(machine);
  if (!wait_for_room()) return true;
  const LiveSide::Point point = side_.at_point();
  if (point.halt == HaltReason::kFenced) {
    why = {EndKind::kFenced, side_.status(now_()).reason};
    return false;
  }
  if (point.halt == HaltReason::kHandedOver) {
    why = {EndKind::kHandedOver, "handed over to the secondary"};
    return false;
  }
  follow(machine, point.log);
  if (transfer_ && log_->has_room()) transfer(machine);
  if (recorder_ && point.arm) side_.arm(now_(), log_, marker_at(machine));
  give_up_time(machine, point.slowdown);
  return true;
}

// Another session than the one followed: its secondary knows nothing yet.
void LiveObserver::follow(hv::Machine& machine, const std::shared_ptr<OutboundLog>& log) {
  if (log == log_) return;
  log_ = log;
  transfer_.reset();
  recorder_.reset();
  witness_.reset();
  if (!log_) return;
  for (const NamedSection& section : sections_) send_section(section.name, section.data);
  transfer_.emplace(machine);
}

void LiveObserver::send_section(std::string_view name, ByteSpan bytes) {
  for (log::Section& part : log::split_section(name, bytes))
    log_->append({.at = {}, .body = std::move(part)});
}

void LiveObserver::transfer(hv::Machine& machine) {
  const bool at_round = transfer_->pages_left() <= kPagesAtEnd || transfer_->rounds() > kRoundsMost;
  if (!at_round || transfer_->pages_taken() == 0) {
    const bool late = transfer_->rounds() >= kLateRound;
    send_section("snapshot", transfer_->next(late ? kPagesAPieceLate : kPagesAPiece));
    log_->send_now();
    const double all = static_cast<double>(machine.memory().page_count());
    const double left = static_cast<double>(transfer_->pages_left());
    side_.transferring(transfer_->rounds() == 1 ? 1 - left / all : 0.99);
    return;
  }
  const nanoseconds stopped = now_();
  const Bytes rest = transfer_->finish();
  for (size_t at = 0; at < rest.size(); at += kSectionBytes)
    send_section("snapshot", ByteSpan(rest).subspan(at, std::min(kSectionBytes, rest.size() - at)));
  log_->send_now();
  transfer_.reset();
  std::string not_traced;
  if (witness_options_.wanted()) {
    // Where the guest cannot be traced the state's digests speak alone, and that is said.
    auto witness = Witness::start(machine, witness_options_);
    if (witness.ok()) {
      witness_ = std::move(witness).value();
    } else {
      not_traced = state_digests_only(witness.error());
    }
  }
  recorder_.emplace(*log_, std::function<bool()>(), witness_.get());
  side_.transferred(now_() - stopped, std::move(not_traced));
}

// False: the run is about to end, and waiting would only delay that.
bool LiveObserver::wait_for_room() {
  bool waited = false;
  for (;;) {
    if (stop_) break;
    const LiveSide::Point point = side_.at_point();
    if (point.halt != HaltReason::kNone) break;
    const bool log_full = recorder_ && point.log == log_ && log_ && !log_->has_room();
    if (!log_full && !gate_.full()) break;
    waited = true;
    side_.held_back(true);
    std::this_thread::sleep_for(milliseconds(1));
  }
  if (waited) side_.held_back(false);
  return !stop_;
}

void LiveObserver::give_up_time(hv::Machine& machine, double slowdown) {
  const nanoseconds now = now_();
  if (slowdown > 0 && !machine.vcpu().halted()) {
    const auto ran = static_cast<double>((now - ran_since_).count());
    const nanoseconds nap(static_cast<int64_t>(ran * slowdown / (1 - slowdown)));
    std::this_thread::sleep_for(std::min(nap, kNapMost));
  }
  ran_since_ = now_();
}

void LiveObserver::finish(hv::Machine& machine, const EndOfInputs& end) {
  if (end.kind == EndKind::kHandedOver) {
    // A last record, so that what the guest did up to here is replayed before the secondary is
    // live.
    if (recorder_) log_->append(marker_at(machine));
    return side_.handed_over();
  }
  if (end.kind == EndKind::kFenced) return;
  const LiveSide::Point point = side_.at_point();
  if (recorder_ && point.log == log_) {
    recorder_->finish(machine, end);
    gate_.close_batch(log_->position());
  }
  side_.stopped(now_());
}

}  // namespace us::replay
