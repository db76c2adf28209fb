// Two whole sides in one process: real sockets on the loopback, real threads, a real machine.
#include <doctest/doctest.h>
#include <filesystem>
#include <thread>

#include "tests/unit/replay/guest.h"
#include "tools/ft_standby.h"

namespace us::tools {
namespace {

using replay::EndKind;
using replay::LiveState;

std::unique_ptr<FtBase> base_of(const std::string& role, const std::string& arbiter, bool tls) {
  replay::PairOptions options;
  options.vm_name = "pair";
  options.node = "test/" + role;
  // Sanitizers and busy machines are slow; nothing here waits for the end of it.
  options.silence = std::chrono::seconds(20);
  auto opened = replay::open_arbiter(arbiter, {.node = options.node, .vm_name = "pair"});
  REQUIRE(opened.ok());
  const log::Credentials credentials{
      .kind = tls ? log::CredentialKind::kPsk : log::CredentialKind::kPlaintext,
      .key = tls ? Bytes(32, 7) : Bytes()};
  return std::make_unique<FtBase>(options, credentials, std::move(opened).value(), nullptr);
}

struct Folder {
  std::filesystem::path path;
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "us-pair-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Folder() { std::filesystem::remove_all(path); }
};

struct Pair {
  Folder folder;
  std::string arbiter = "file:" + (folder.path / "arbiter").string();
  std::unique_ptr<FtBase> standby_base, live_base;
  std::unique_ptr<replay::StandbyDriver> standby;
  std::optional<replay::StandbySession> session;
  Shadow shadow;
  std::thread follower;
  std::unique_ptr<hv::Machine> machine;
  std::unique_ptr<FtLive> live;

  std::function<void()> after_session;

  Pair(uint64_t rounds, bool tls, bool ipt_check = false, const std::string& backend = "soft") {
    standby_base = base_of("standby", arbiter, tls);
    live_base = base_of("primary", arbiter, tls);
    standby = std::make_unique<replay::StandbyDriver>(standby_base->pair, standby_base->gate,
                                                      *standby_base->network, nullptr);
    auto port = standby->listen({"127.0.0.1", 0}, standby_base->credentials);
    REQUIRE(port.ok());
    follower = std::thread([this] {
      session = standby->wait_session();
      if (session) shadow = follow_session(*standby_base, *standby, *session, "");
      if (after_session) after_session();
    });
    machine = replay::test::payload_machine(live_base->gate, rounds);
    VmConfig config;
    config.name = "pair";
    config.ipt_check = ipt_check;
    config.backend.name = backend;
    REQUIRE(live_base->arbiter->claim(1).verdict == replay::ClaimVerdict::kWon);
    live = std::make_unique<FtLive>(*live_base, 1, config, machine->config());
    REQUIRE(live->enable("127.0.0.1:" + std::to_string(*port)).ok());
  }
  ~Pair() {
    standby->stop("test over");
    if (follower.joinable()) follower.join();
  }

  replay::EndOfInputs run() {
    SignalWatch signals;
    VmConfig nothing;
    auto world = LiveWorld::open(nothing);
    REQUIRE(world.ok());
    const replay::EndOfInputs end = live->run(**world, *machine, signals);
    follower.join();
    return end;
  }
};

// The payload takes seconds: long enough to be protected on the way, on any machine.
constexpr uint64_t kLong = 400'000;

TEST_CASE("a guest protected to its end leaves two machines with one digest") {
  for (const bool tls : {true, false}) {
    CAPTURE(tls);
    Pair pair(kLong, tls);
    const replay::EndOfInputs end = pair.run();
    CHECK(end.kind == EndKind::kGuestPoweredOff);
    REQUIRE(pair.shadow.machine != nullptr);
    CHECK(pair.shadow.end.kind == EndKind::kGuestPoweredOff);
    CHECK(pair.session->log->entitled());
    CHECK(pair.shadow.machine->whole_digest().hex() == pair.machine->whole_digest().hex());
  }
}

TEST_CASE(
    "a test failover stops both machines at one point, with one digest, and entitles the other") {
  Pair pair(100 * kLong, true);
  std::thread operator_thread([&] {
    while (!pair.live->request({{"verb", "failover"}}).ok())
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
  });
  const replay::EndOfInputs end = pair.run();
  operator_thread.join();
  CHECK(end.kind == EndKind::kHandedOver);
  REQUIRE(pair.shadow.machine != nullptr);
  CHECK(pair.shadow.end.kind == EndKind::kLogEnded);
  CHECK(pair.session->log->why_ended() == replay::InboundEnd::kTakeOver);
  CHECK(pair.session->log->entitled());
  CHECK(pair.shadow.machine->point() == pair.machine->point());
  CHECK(pair.shadow.machine->register_digest().hex() == pair.machine->register_digest().hex());
  CHECK(pair.shadow.machine->memory_digest().hex() == pair.machine->memory_digest().hex());
}

TEST_CASE(
    "paths are compared where the primary asks for it, and both sides count the same epochs") {
  Pair pair(kLong, true, true);
  const replay::EndOfInputs end = pair.run();
  CHECK(end.kind == EndKind::kGuestPoweredOff);
  INFO(pair.shadow.end.detail);
  CHECK(pair.shadow.end.kind == EndKind::kGuestPoweredOff);
  CHECK(pair.shadow.traced.epochs > 0);
  CHECK(pair.shadow.traced.unknown == 0);
  CHECK(pair.shadow.traced.counter_mismatches == 0);
  CHECK(pair.shadow.traced.epochs == pair.shadow.verified_epochs);
}

TEST_CASE(
    "a fault in the secondary is noticed at the next epoch, and the primary runs to its end") {
  for (const bool traced : {false, true}) {
    CAPTURE(traced);
    Pair pair(kLong, true, traced);
    uint64_t epoch_at_fault = 0, inputs = 0;
    pair.standby_base->meddle = [&](hv::Machine& machine) {
      if (++inputs != 30) return;
      hv::Registers registers = machine.vcpu().registers();
      registers.gpr[12] ^= 1;  // the payload does not use it: nothing but a digest can tell
      machine.vcpu().set_registers(registers);
      epoch_at_fault = machine.now().value;
    };
    pair.after_session = [&] { pair.standby->side().diverged(pair.session->log, "it differs"); };
    const replay::EndOfInputs end = pair.run();
    CHECK(end.kind == EndKind::kGuestPoweredOff);
    CHECK(pair.shadow.end.kind == EndKind::kDiverged);
    CHECK(pair.shadow.end.detail.find("differs in registers") != std::string::npos);
    // One epoch is 10 ms of guest time; an anchor may be 4 ms past its end.
    REQUIRE(pair.shadow.machine != nullptr);
    CHECK(pair.shadow.machine->now().value - epoch_at_fault <= 15'000'000);
    CHECK(pair.live->status().divergences == 1);
    CHECK(pair.live->status().last_divergence == "it differs");
  }
}

// The host was found fit for what was announced, and for nothing else.
TEST_CASE("a VM described with another backend than the one announced is FT-010, and not made") {
  Pair pair(kLong, true, false, "kvm");
  pair.after_session = [&] {
    pair.standby->side().diverged(pair.session->log, pair.shadow.error->what);
  };
  CHECK(pair.run().kind == EndKind::kGuestPoweredOff);
  REQUIRE(pair.shadow.error.has_value());
  CHECK(pair.shadow.error->id == "FT-010");
  CHECK(pair.shadow.error->seen.find("\"soft-1\" announced, \"kvm-1\"") != std::string::npos);
  CHECK(pair.shadow.machine == nullptr);
}

TEST_CASE("a primary that lost the arbiter while it was away is fenced when its secondary goes") {
  Pair pair(100 * kLong, true);
  std::thread rival([&] {
    while (pair.live->status().state != "protected")
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    auto other = replay::open_arbiter(pair.arbiter, {.node = "test/rival", .vm_name = "pair"});
    REQUIRE(other.ok());
    CHECK((*other)->claim(2).verdict == replay::ClaimVerdict::kWon);
    pair.standby->stop("gone");
  });
  const replay::EndOfInputs end = pair.run();
  rival.join();
  CHECK(end.kind == EndKind::kFenced);
  CHECK(pair.live_base->gate.mode() == replay::OutputGate::Mode::kShut);
}

TEST_CASE("the announcement of a MAC address is a RARP broadcast from it") {
  const Bytes frame = announcement({0x52, 0x54, 0, 1, 2, 3});
  CHECK(frame.size() == 60);
  CHECK(frame[0] == 0xff);
  CHECK(frame[6] == 0x52);
  CHECK(frame[12] == 0x80);
  CHECK(frame[13] == 0x35);
}

}  // namespace
}  // namespace us::tools
