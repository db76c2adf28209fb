// The control socket: requests and replies, which side is asked, and hostile clients.
#include "tools/control/control.h"

#include <csignal>
#include <doctest/doctest.h>
#include <mutex>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <vector>

#include "tests/unit/control/rig.h"
#include "tools/control/reply.h"
#include "tools/control/status.h"

using namespace us;
using namespace us::tools;
using namespace us::tools::testing;
using nlohmann::json;

namespace {

// A side that tells its status and echoes everything else.
ControlServer::Handler side(const std::string& role, const std::string& state = "protected") {
  return [=](const json& request) -> Result<json> {
    if (request["verb"] == "status") {
      FtStatus status;
      status.role = role;
      status.state = state;
      return to_json(status);
    }
    if (request["verb"] == "fail")
      return UserError{"CHAN-004", ExitCode::kPeerLost, "what", "seen \xff", "needed", "mend"};
    return json{{"echo", request}, {"role", role}};
  };
}

std::unique_ptr<ControlServer> started(const std::string& name, ControlServer::Handler handler) {
  auto server = ControlServer::start(name, std::move(handler));
  REQUIRE(server.ok());
  return std::move(server).value();
}

std::string error_id(const std::string& line) {
  const json reply = json::parse(line, nullptr, false);
  const auto error = error_in(reply);
  return error ? error->id : "none";
}

}  // namespace

TEST_CASE("a request reaches the VM's handler and its reply comes back") {
  RuntimeFolder folder;
  const auto server = started("web1", side("primary"));
  const auto reply = control_request("web1", "", {{"verb", "enable"}, {"secondary", "h:7077"}});
  REQUIRE(reply.ok());
  CHECK((*reply)["echo"]["verb"] == "enable");
  CHECK((*reply)["echo"]["secondary"] == "h:7077");
  CHECK(server->path() == folder.file(fmt::format("web1.{}.sock", ::getpid())));
}

TEST_CASE("a handler's error comes back whole: id, exit code and all four parts") {
  RuntimeFolder folder;
  const auto server = started("web1", side("primary"));
  const auto reply = control_request("web1", "", {{"verb", "fail"}});
  REQUIRE_FALSE(reply.ok());
  CHECK(reply.error().id == "CHAN-004");
  CHECK(reply.error().exit_code == ExitCode::kPeerLost);
  CHECK(reply.error().what == "what");
  CHECK(reply.error().seen == "seen \xef\xbf\xbd");
  CHECK(reply.error().needed == "needed");
  CHECK(reply.error().mend == "mend");
}

TEST_CASE("no VM of that name is CTL-001 with exit code 3, also while VMs of similar names run") {
  RuntimeFolder folder;
  CHECK(control_request("web1", "", {{"verb", "status"}}).error().id == "CTL-001");
  const auto a = started("web10", side("primary"));
  const auto b = started("web", side("primary"));
  const auto c = started("web1.2", side("primary"));
  const auto reply = control_request("web1", "", {{"verb", "status"}});
  REQUIRE_FALSE(reply.ok());
  CHECK(reply.error().id == "CTL-001");
  CHECK(reply.error().exit_code == ExitCode::kHostCannot);
  CHECK(control_request("web1.2", "", {{"verb", "status"}}).ok());
}

TEST_CASE("of two sides on one host the live one is asked, or the one that was named") {
  RuntimeFolder folder;
  const auto standby = started("web1", side("secondary", "replaying"));
  const auto live = started("web1", side("primary"));
  CHECK(standby->path() != live->path());
  const auto role_for = [](const std::string& role) {
    return (*control_request("web1", role, {{"verb", "x"}}))["role"];
  };
  CHECK(role_for("") == "primary");
  CHECK(role_for("primary") == "primary");
  CHECK(role_for("secondary") == "secondary");
  CHECK((*control_request("web1", "secondary", {{"verb", "status"}}))["role"] == "secondary");
}

TEST_CASE(
    "a role that no side has is CTL-001, and a halted side is asked only for want of others") {
  RuntimeFolder folder;
  const auto halted = started("web1", side("primary", "halted"));
  CHECK((*control_request("web1", "", {{"verb", "status"}}))["state"] == "halted");
  CHECK(control_request("web1", "secondary", {{"verb", "x"}}).error().id == "CTL-001");
  const auto standby = started("web1", side("secondary", "waiting"));
  CHECK((*control_request("web1", "", {{"verb", "status"}}))["state"] == "waiting");
}

TEST_CASE("a server that ends takes its socket with it, and a killed process's socket goes later") {
  RuntimeFolder folder;
  {
    const auto server = started("web1", side("primary"));
    CHECK(folder.files() == 1);
  }
  CHECK(folder.files() == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const auto server = ControlServer::start("web1", side("primary"));
    ::raise(SIGKILL);
  }
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  CHECK(folder.files() == 1);
  CHECK(control_request("web1", "", {{"verb", "status"}}).error().id == "CTL-001");
  const auto server = started("mail", side("primary"));
  CHECK(folder.files() == 1);
}

TEST_CASE("the runtime folder is made with mode 0700; one that others can write to is refused") {
  RuntimeFolder folder;
  ::setenv("UNDERSTUDY_RUNTIME_DIR", folder.file("sub").c_str(), 1);
  REQUIRE(runtime_folder().ok());
  struct stat info {};
  REQUIRE(::stat(folder.file("sub").c_str(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0700);
  ::chmod(folder.file("sub").c_str(), 0777);
  CHECK(runtime_folder().error().id == "CTL-004");
  ::setenv("UNDERSTUDY_RUNTIME_DIR", folder.file("missing/sub").c_str(), 1);
  CHECK(runtime_folder().error().id == "CTL-004");
  REQUIRE(::symlink(folder.path().c_str(), folder.file("link").c_str()) == 0);
  ::setenv("UNDERSTUDY_RUNTIME_DIR", folder.file("link").c_str(), 1);
  CHECK(ControlServer::start("web1", side("primary")).error().id == "CTL-004");
}

TEST_CASE("names that are no part of a file's name are CTL-003, a path that is too long CTL-004") {
  RuntimeFolder folder;
  for (const char* name : {"", "a/b", "..", ".x", "a b", "a\nb", "a\x7f"}) {
    CHECK(ControlServer::start(name, side("primary")).error().id == "CTL-003");
    CHECK(control_request(name, "", {{"verb", "status"}}).error().id == "CTL-003");
  }
  CHECK(ControlServer::start(std::string(65, 'a'), side("primary")).error().id == "CTL-003");
  const std::string deep = folder.file(std::string(60, 'd'));
  ::setenv("UNDERSTUDY_RUNTIME_DIR", deep.c_str(), 1);
  CHECK(ControlServer::start(std::string(60, 'a'), side("primary")).error().id == "CTL-004");
}

TEST_CASE("lines that are no request are answered with CTL-005 and the connection goes on") {
  RuntimeFolder folder;
  const auto server = started("web1", [](const json& request) -> Result<json> {
    return json{{"number", request.at("number").get<int>()}};
  });
  const Fd fd = connected(server->path());
  const std::string bad[] = {"",
                             "{",
                             "null",
                             "[]",
                             "7",
                             "{\"verb\":7}",
                             "{\"verb\":null}",
                             "{}",
                             "{\"verb\":\"x\"}",
                             "{\"verb\":\"x\",\"number\":\"seven\"}",
                             std::string("\0\0", 2),
                             "\xff\xfe",
                             "{\"verb\":\"\xff\"}",
                             "GET / HTTP/1.1\r",
                             std::string(60'000, '['),
                             "{\"verb\":\"x\",\"number\":" + std::string(60'000, '9')};
  for (const std::string& line : bad) {
    REQUIRE(send_all(fd, line + "\n"));
    CHECK_MESSAGE(error_id(receive_line(fd)) == "CTL-005", line.substr(0, 40));
  }
  REQUIRE(send_all(fd, "{\"verb\":\"x\",\"number\":7}\n"));
  CHECK(json::parse(receive_line(fd))["number"] == 7);
}

TEST_CASE("a line of more than 64 KiB is refused and the connection closed, however it is sent") {
  RuntimeFolder folder;
  const auto server = started("web1", side("primary"));
  for (const size_t size : {size_t{64 * 1024 + 1}, size_t{1} << 22}) {
    const Fd fd = connected(server->path());
    send_all(fd, std::string(size, 'x'));
    send_all(fd, "\n");
    const std::string all = receive_all(fd);
    // A peer that still sends when it is closed may get a reset before the reply.
    if (!all.empty()) CHECK(error_id(all.substr(0, all.find('\n'))) == "CTL-005");
  }
  CHECK(control_request("web1", "", {{"verb", "status"}}).ok());
}

TEST_CASE("several requests in one packet, and one in many, are each answered in order") {
  RuntimeFolder folder;
  const auto server = started("web1", side("primary"));
  const Fd fd = connected(server->path());
  std::string all;
  for (int i = 0; i < 200; ++i) all += fmt::format("{{\"verb\":\"x\",\"i\":{}}}\n", i);
  std::thread sender([&] {
    for (const char c : all.substr(0, 500)) send_all(fd, std::string(1, c));
    send_all(fd, all.substr(500));
    ::shutdown(fd.get(), SHUT_WR);
  });
  for (int i = 0; i < 200; ++i) CHECK(json::parse(receive_line(fd))["echo"]["i"] == i);
  CHECK(receive_line(fd).empty());
  sender.join();
}

TEST_CASE("clients that say nothing, stall in a line or do not read keep nobody else out") {
  RuntimeFolder folder;
  const std::string big(500'000, 'b');
  const auto server = started("web1", [&](const json& request) -> Result<json> {
    if (request["verb"] == "status") return to_json(FtStatus{});
    return json{{"big", big}};
  });
  std::vector<Fd> clients;
  for (int i = 0; i < 60; ++i) {
    clients.push_back(connected(server->path()));
    if (i % 3 == 1) send_all(clients.back(), "{\"verb\":");
    if (i % 3 == 2) {
      for (int n = 0; n < 20; ++n) {
        const char request[] = "{\"verb\":\"big\"}\n";
        if (::send(clients.back().get(), request, sizeof request - 1, MSG_NOSIGNAL) < 0) break;
      }
    }
    CHECK(control_request("web1", "", {{"verb", "status"}}).ok());
  }
}

TEST_CASE("a process that is there but does not answer, or says nonsense, is CTL-002") {
  RuntimeFolder folder;
  const auto listener = listen_unix(folder.file(fmt::format("web1.{}.sock", ::getpid())));
  REQUIRE(listener.ok());
  const std::string answers[] = {"", "nonsense\n", std::string(2 << 20, 'x'), "{\"error\":7}\n",
                                 "{\"error\":{\"id\":\"X-1\"}}\n"};
  for (const std::string& answer : answers) {
    std::thread peer([&] {
      pollfd polled{.fd = listener->get(), .events = POLLIN};
      ::poll(&polled, 1, -1);
      const Fd fd(::accept4(listener->get(), nullptr, nullptr, SOCK_NONBLOCK));
      receive_line(fd);
      send_all(fd, answer);
    });
    const auto reply = control_request("web1", "", {{"verb", "status"}});
    peer.join();
    REQUIRE_FALSE(reply.ok());
    CHECK(reply.error().id == "CTL-002");
  }
}

TEST_CASE("a hundred requests from eight threads are all answered with their own replies") {
  RuntimeFolder folder;
  const auto server = started("web1", side("primary"));
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; ++i) {
        const auto reply = control_request("web1", "primary", {{"verb", "x"}, {"i", t * 1000 + i}});
        right += reply.ok() && (*reply)["echo"]["i"] == t * 1000 + i;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(right == 800);
}
