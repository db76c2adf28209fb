#include "tests/simulation/node.h"

#include <cstring>

namespace us::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

Bytes to_bytes(uint64_t value) {
  Bytes bytes(8);
  std::memcpy(bytes.data(), &value, 8);
  return bytes;
}
uint64_t to_number(ByteSpan bytes) {
  uint64_t value = 0;
  std::memcpy(&value, bytes.data(), std::min<size_t>(8, bytes.size()));
  return value;
}

log::Record record_at(uint64_t branches, log::Body body) {
  return {.at = {.branches = branches, .rip = 0x1000 + branches % 64}, .body = std::move(body)};
}

}  // namespace

// --- A host whose VM is live

struct Node::Live final : replay::LiveActions {
  Live(Node& n, uint64_t generation_now)
      : node(n),
        generation(generation_now),
        side(n.sim_.options, generation_now, *n.gate_, *this) {}

  Nanos now() const { return node.sim_.schedule.now(); }

  void connect() override {
    Simulation& sim = node.sim_;
    Node& peer = sim.other(node);
    const bool reachable = sim.open[0] && sim.open[1];
    const Nanos delay = reachable ? sim.random.between(microseconds(50), milliseconds(1))
                                  : sim.random.between(milliseconds(100), milliseconds(400));
    node.later(delay, [this, &sim, &peer, reachable] {
      if (!reachable || !peer.listens())
        return side.connect_failed(now(), reachable ? "refused" : "timed out");
      connection = std::make_shared<Connection>(sim.schedule, sim.random);
      sim.connected(connection);
      auto mine = connection;
      mine->set_end(
          0, {.message =
                  [this, &host = node, mine, inc = node.incarnation_](log::Message m) {
                    // This object may be gone; its host never is.
                    return inc == host.incarnation_ && mine == connection &&
                           side.message(now(), std::move(m));
                  },
              .closed =
                  [this, &host = node, mine, inc = node.incarnation_](const std::string& why) {
                    if (inc != host.incarnation_ || mine != connection) return;
                    connection.reset();
                    side.unlinked(now(), why);
                  }});
      peer.accept(mine);
      side.linked(now());
    });
  }
  void send(const log::Message& message) override {
    if (connection) connection->send(0, message);
  }
  void send_frame(ByteSpan frame) override {
    send(log::FrameMessage{Bytes(frame.begin(), frame.end())});
  }
  void drop_link() override {
    if (auto old = std::move(connection)) old->close(0, false);
    connection.reset();
  }
  void claim(uint64_t wanted) override {
    ask(node.sim_.schedule, node.sim_.random, node.sim_.arbiter, wanted, node.name_,
        [this, &host = node, inc = node.incarnation_](const replay::Claim& claim) {
          if (inc == host.incarnation_) side.claimed(now(), claim);
        });
  }
  void wake_guest() override {}
  void event(const std::string& name, const std::string& detail) override {
    node.sim_.tell(node.name_ + " " + name + ": " + detail);
  }

  Node& node;
  uint64_t generation;
  std::shared_ptr<Connection> connection;
  // What LiveObserver keeps.
  std::shared_ptr<replay::OutboundLog> log;
  std::shared_ptr<Transfer> transfer;
  uint64_t pieces_left = 0;
  bool logging = false;
  std::unordered_map<uint64_t, Need> needs;
  std::vector<uint64_t> fresh_outputs;
  replay::LiveSide side;
};

// --- A host that stands by

struct Node::Standby final : replay::StandbyActions {
  explicit Standby(Node& n) : node(n), side(n.sim_.options, *n.gate_, *this) {}

  Nanos now() const { return node.sim_.schedule.now(); }
  void send(replay::LinkId link, const log::Message& message) override {
    if (auto c = find(link)) c->send(1, message);
  }
  void drop_link(replay::LinkId link) override {
    if (auto c = find(link)) c->close(1, false);
  }
  void pause_reading(replay::LinkId link, bool paused) override {
    if (auto c = find(link)) c->set_paused(1, paused);
  }
  void session_begun() override {}
  void event(const std::string& name, const std::string& detail) override {
    node.sim_.tell(node.name_ + " " + name + ": " + detail);
  }
  std::shared_ptr<Connection> find(replay::LinkId link) {
    const auto found = links.find(link);
    return found == links.end() ? nullptr : found->second;
  }

  // Planted: the frame is acknowledged, and looked at some time later.
  bool ack_first(replay::LinkId link, log::Message& message) {
    auto* frame = std::get_if<log::FrameMessage>(&message);
    if (node.sim_.planted != Planted::kAckBeforeKeep || frame == nullptr) return false;
    ByteReader in(frame->frame);
    in.get_span(8);
    const uint32_t stored [[maybe_unused]] = in.get<uint32_t>();
    const auto records = in.get<uint32_t>();
    const auto sequence = in.get<uint64_t>();
    const auto first = in.get<uint64_t>();
    send(link, log::Ack{.next_sequence = sequence + 1,
                        .received = LogPosition(first + records),
                        .replayed = session ? session->log->replayed() : LogPosition{},
                        .ready = loaded});
    kept_late = std::max(kept_late + microseconds(1),
                         now() + node.sim_.random.between(milliseconds(0), milliseconds(20)));
    node.later(kept_late - now(),
               [this, link, late = std::make_shared<log::Message>(std::move(message))] {
                 side.message(now(), link, std::move(*late));
               });
    return true;
  }

  Node& node;
  std::map<replay::LinkId, std::shared_ptr<Connection>> links;
  replay::LinkId next_link = 1;
  std::optional<replay::StandbySession> session;
  std::shared_ptr<Transfer> transfer;
  bool loaded = false, claiming = false;
  uint64_t applied = 0;
  Nanos kept_late{0};
  replay::StandbySide side;
};

Node::Node(Simulation& sim, int id) : sim_(sim), name_(id == 0 ? "a" : "b") {}
Node::~Node() = default;

void Node::later(Nanos delay, std::function<void()> f) {
  sim_.schedule.after(delay, [this, inc = incarnation_, f = std::move(f)] {
    if (inc == incarnation_) f();
  });
}

void Node::start_live_first() {
  sim_.arbiter.claim(1, name_);
  gate_ = std::make_unique<replay::OutputGate>([this] { return sim_.schedule.now(); }, nullptr);
  gate_->connect(this);
  become_live(1);
}

void Node::start_standby() {
  ++incarnation_;
  live_.reset();
  standby_.reset();
  gate_ = std::make_unique<replay::OutputGate>([this] { return sim_.schedule.now(); }, nullptr);
  standby_ = std::make_unique<Standby>(*this);
  gate_->set_mode(replay::OutputGate::Mode::kShadow);
  tick();
  standby_step();
}

void Node::become_live(uint64_t generation) {
  ++incarnation_;
  standby_.reset();
  live_ = std::make_unique<Live>(*this, generation);
  gate_->connect(this);
  gate_->set_mode(replay::OutputGate::Mode::kThrough);
  live_->side.enable(sim_.schedule.now(), "no secondary yet");
  tick();
  live_step();
}

void Node::crash() {
  if (!up()) return;
  sim_.tell(name_ + " crashes");
  if (live_) sim_.lost_vm(*this);
  if (standby_) sim_.lost_standby(*this, standby_->claiming);
  ++incarnation_;
  if (live_ && live_->connection) live_->connection->close(0, true);
  if (standby_)
    for (auto& [id, link] : standby_->links) link->close(1, true);
  live_.reset();
  standby_.reset();
}

void Node::retire() {
  ++sim_.outcome.fenced;
  ++incarnation_;
  if (live_ && live_->connection) live_->connection->close(0, false);
  if (standby_)
    for (auto& [id, link] : standby_->links) link->close(1, false);
  live_.reset();
  standby_.reset();
  later(sim_.random.between(milliseconds(20), milliseconds(200)), [this] { start_standby(); });
}

void Node::tick() {
  const Nanos now = sim_.schedule.now();
  if (live_) live_->side.tick(now);
  if (standby_) standby_->side.tick(now);
  later(milliseconds(5), [this] { tick(); });
}

void Node::accept(std::shared_ptr<Connection> connection) {
  Standby& s = *standby_;
  const replay::LinkId id = s.next_link++;
  s.links[id] = connection;
  connection->set_end(1, {.message =
                              [this, id, inc = incarnation_](log::Message m) {
                                if (inc != incarnation_ || !standby_) return false;
                                if (standby_->ack_first(id, m)) return true;
                                const bool good =
                                    standby_->side.message(sim_.schedule.now(), id, std::move(m));
                                if (auto& t = standby_->transfer; t && standby_->session)
                                  t->kept = std::max(t->kept, standby_->session->log->received());
                                return good;
                              },
                          .closed =
                              [this, id, inc = incarnation_](const std::string& why) {
                                if (inc != incarnation_ || !standby_) return;
                                standby_->links.erase(id);
                                standby_->side.unlinked(sim_.schedule.now(), id, why);
                              }});
}

replay::LiveState Node::live_state() const { return live_->side.state(); }
// The entitlement may still lie unread in what was received.
bool Node::may_take_over() const {
  if (!standby_ || !standby_->session || !standby_->transfer) return false;
  return standby_->session->log->entitled() ||
         standby_->session->log->received() >= standby_->transfer->armed_at;
}
LogPosition Node::kept() const {
  return standby_ && standby_->session ? standby_->session->log->received() : LogPosition{};
}
bool Node::same_session(const Node& live) const {
  return standby_ && standby_->transfer && live.live_ && standby_->transfer == live.live_->transfer;
}

std::optional<Node::Need> Node::need_of(uint64_t content) const {
  if (!live_) return std::nullopt;
  const auto found = live_->needs.find(content);
  return found == live_->needs.end() ? std::nullopt : std::optional(found->second);
}

void Node::frame(uint8_t, Bytes frame) { sim_.released(*this, to_number(frame)); }

void Node::emit(uint64_t content) {
  if (live_) live_->fresh_outputs.push_back(content);
  gate_->frame(0, to_bytes(content));
}

// One turn of the vCPU thread: as LiveObserver does before an input, then the input.
void Node::live_step() {
  Live& l = *live_;
  const Nanos now = sim_.schedule.now();
  const replay::LiveSide::Point point = l.side.at_point();
  if (point.halt != replay::HaltReason::kNone) return retire();
  later(sim_.random.between(microseconds(200), milliseconds(4)), [this] { live_step(); });
  if (gate_->full() || (l.logging && point.log == l.log && l.log && !l.log->has_room())) return;
  if (point.log != l.log) {
    l.log = point.log;
    l.logging = false;
    l.transfer.reset();
    if (l.log) {
      l.transfer = std::make_shared<Transfer>();
      sim_.transfers.push_back(l.transfer);
      l.pieces_left = 1 + sim_.random.below(20);
    }
  }
  // The run up to the input's point, then the record, then the input.
  l.fresh_outputs.clear();
  guest_.run_to(guest_.branches + sim_.random.below(40), [this](uint64_t c) { emit(c); });
  if (l.log && !l.logging && l.log->has_room()) {
    if (--l.pieces_left != 0) {
      l.log->append({.at = {}, .body = log::Section{"vm", 0, 3, {1, 2, 3}}});
    } else {
      l.transfer->guest = guest_;
      l.transfer->generation = l.side.status(now).generation;
      l.log->append(
          {.at = {}, .body = log::Section{"snapshot", 0, 8, to_bytes(sim_.transfers.size() - 1)}});
      l.logging = true;
      l.side.transferred(milliseconds(1));
      ++sim_.outcome.sessions;
    }
    l.log->send_now();
  }
  if (l.logging && point.arm) {
    const auto marker = record_at(guest_.branches, log::Marker{log::MarkerKind::kGoLive, 0, ""});
    if (l.side.arm(now, l.log, marker)) l.transfer->armed_at = l.log->position();
  }
  const uint64_t input = sim_.random.next();
  if (l.logging) {
    l.log->append(record_at(guest_.branches, log::Console{0, to_bytes(input)}));
    ++sim_.outcome.records;
    const LogPosition position = l.log->position();
    for (const uint64_t content : l.fresh_outputs)
      l.needs[content] = {l.transfer, position, position > l.transfer->armed_at};
    const bool awaited = gate_->close_batch(position);
    if (awaited || sim_.random.chance(0.3)) l.log->send_now();
    l.side.appended(now, l.log);
    if (sim_.planted == Planted::kReleaseBeforeAck) gate_->covered(position);
  }
  guest_.apply(input);
  if (l.logging) l.transfer->states.push_back(mix(guest_.state, guest_.branches));
}

// One turn of the replaying thread.
void Node::standby_step() {
  Standby& s = *standby_;
  const bool slow = sim_.schedule.now() < slow_until_;
  later(slow ? sim_.random.between(milliseconds(2), milliseconds(30))
             : sim_.random.between(microseconds(100), milliseconds(2)),
        [this] { standby_step(); });
  if (s.claiming) return;
  if (!s.session) {
    s.session = s.side.take_session();
    s.loaded = false;
    s.transfer.reset();
    s.applied = 0;
    if (s.session) gate_->set_mode(replay::OutputGate::Mode::kShadow);
  }
  if (!s.session) return;
  replay::InboundLog& log = *s.session->log;
  for (uint64_t most = slow ? 1 : 1 + sim_.random.below(30); most != 0; --most) {
    auto record = log.try_next();
    if (s.transfer) s.transfer->kept = std::max(s.transfer->kept, log.received());
    if (!record.ok()) return sim_.violate("the secondary cannot read the log");
    if (!record->has_value()) break;
    const log::Body& body = (*record)->body;
    if (const auto* section = std::get_if<log::Section>(&body)) {
      if (section->name != "snapshot") continue;
      s.transfer = sim_.transfers.at(to_number(section->data));
      guest_ = s.transfer->guest;
      s.loaded = true;
      s.side.ready(s.session->log);
    } else if (std::holds_alternative<log::Marker>(body)) {
      // The primary's outputs up to this point left freely: they must be in this history too.
      guest_.run_to((*record)->at.branches, [this](uint64_t c) { emit(c); });
      gate_->close_batch(log.position());
    } else if (const auto* console = std::get_if<log::Console>(&body)) {
      guest_.run_to((*record)->at.branches, [this](uint64_t c) { emit(c); });
      gate_->close_batch(log.position());
      guest_.apply(to_number(console->bytes));
      if (s.applied >= s.transfer->states.size() ||
          s.transfer->states[s.applied] != mix(guest_.state, guest_.branches))
        return sim_.violate("the secondary's guest is not where the primary's was");
      ++s.applied;
    }
  }
  if (!log.end().ended) return;
  const bool lost = log.why_ended() == replay::InboundEnd::kPeerLost ||
                    log.why_ended() == replay::InboundEnd::kTakeOver;
  const uint64_t generation = s.session->generation;
  if (!lost || !log.entitled()) {
    s.session.reset();
    return s.side.wait_again(generation);
  }
  s.claiming = true;
  if (sim_.planted == Planted::kGoLiveWithoutArbiter) {
    s.side.close("live");
    sim_.went_live(*this);
    return become_live(generation + 1);
  }
  const auto answered = [this, generation, inc = incarnation_](const replay::Claim& claim) {
    if (inc != incarnation_) return;
    if (claim.verdict == replay::ClaimVerdict::kUnreachable) {
      later(sim_.options.arbiter_retry, [this] { standby_->claiming = false; });
    } else if (claim.verdict == replay::ClaimVerdict::kLost) {
      retire();
    } else {
      standby_->side.close("live");
      sim_.went_live(*this);
      become_live(generation + 1);
    }
  };
  ask(sim_.schedule, sim_.random, sim_.arbiter, generation + 1, name_, answered);
}

}  // namespace us::sim
