// FtStatus as JSON, panel, metrics and events.
#include "tools/control/status.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <set>
#include <sys/stat.h>
#include <thread>
#include <vector>

#include "tests/unit/control/rig.h"
#include "tools/control/events.h"
#include "tools/control/metrics.h"

using namespace us;
using namespace us::tools;
using namespace us::tools::testing;
using nlohmann::json;

namespace {

FtStatus sample() {
  FtStatus s;
  s.vm_name = "web1";
  s.role = "primary";
  s.state = "protected";
  s.peer = "10.0.0.2:7077";
  s.arbiter = "file:/shared/web1.lock";
  s.generation = 3;
  s.lag_seconds = 0.012;
  s.vlockstep_interval_seconds = 0.009;
  s.log_position = (1ull << 53) + 1;  // more than a double holds
  s.output_held = 4;
  s.hold_p99_seconds = 0.0012;
  s.slowdown_percent = 12;
  return s;
}

std::string http(const Fd& fd, const std::string& request) {
  send_all(fd, request);
  return receive_all(fd);
}

}  // namespace

TEST_CASE("a status in JSON has the schema and every key that users read, and comes back equal") {
  const json out = to_json(sample());
  CHECK(out["schema"] == "understudy-status-1");
  for (const char* key :
       {"role", "state", "reason", "generation", "lag_seconds", "vlockstep_interval_seconds",
        "log_bytes_per_second", "output_held", "peer", "vm_name", "failover_go_live_seconds"})
    CHECK_MESSAGE(out.contains(key), key);
  CHECK(out.size() == 42);  // 41 members and the schema
  CHECK(to_json(status_from_json(json::parse(out.dump()))) == out);
}

TEST_CASE(
    "a status from elsewhere with keys missing, unknown or of other types is read as it can") {
  const FtStatus s = status_from_json(json::parse(
      R"({"role":"secondary","lag_seconds":"x","generation":-3,"held_back":1,"more":{},"peer":null,
          "output_held":1e300,"state":[]})"));
  CHECK(s.role == "secondary");
  CHECK(s.lag_seconds == 0);
  CHECK(s.generation == 0);
  CHECK(s.output_held == 0);
  CHECK(s.state.empty());
  CHECK(to_json(status_from_json(json::array())) == to_json(FtStatus{}));
  CHECK(to_json(status_from_json(nullptr)) == to_json(FtStatus{}));
}

TEST_CASE("the panel names state, peer, lag and outputs, and is coloured only where asked") {
  const std::string plain = panel(sample(), false);
  for (const char* part : {"web1", "primary", "protected", "generation 3", "10.0.0.2:7077",
                           "12.0 ms", "9.0 ms", "4 held", "12 %"})
    CHECK_MESSAGE(plain.find(part) != std::string::npos, part);
  CHECK(plain.find('\033') == std::string::npos);
  CHECK(panel(sample(), true).find("\033[32mprotected\033[0m") != std::string::npos);
  FtStatus hostile = sample();
  hostile.state = "x\033[2Jy\n";
  CHECK(panel(hostile, false).find('\033') == std::string::npos);
}

TEST_CASE("the panel shows a transfer only while one runs and a failover only after one") {
  FtStatus s = sample();
  CHECK(panel(s, false).find("transfer ") == std::string::npos);
  CHECK(panel(s, false).find("took over") == std::string::npos);
  s.state = "transferring";
  s.transfer_percent = 43;
  s.failover_detection_seconds = 0.5;
  s.failover_go_live_seconds = 0.02;
  CHECK(panel(s, false).find("43 %") != std::string::npos);
  CHECK(panel(s, false).find("520.0 ms") != std::string::npos);
}

TEST_CASE(
    "metrics are text exposition: each family has help and type once, and samples that parse") {
  FtStatus s = sample();
  s.vm_name = "we\"b\\1\n";
  const std::string text = metrics_text(s);
  std::istringstream lines(text);
  std::set<std::string> types;
  size_t samples = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# TYPE ")) CHECK(types.insert(line).second);
    if (line.starts_with("#")) continue;
    ++samples;
    CHECK(line.starts_with("understudy_"));
    CHECK(line.find("vm=\"we\\\"b\\\\1\\n\"") != std::string::npos);
    const std::string value = line.substr(line.rfind(' ') + 1);
    char* end = nullptr;
    std::strtod(value.c_str(), &end);
    CHECK(*end == '\0');
  }
  CHECK(types.size() > 25);
  CHECK(samples > types.size());
  CHECK(text.find("state=\"protected\"} 1\n") != std::string::npos);
  CHECK(text.find("state=\"halted\"} 0\n") != std::string::npos);
  CHECK(text.find("# TYPE understudy_failovers_total counter") != std::string::npos);
}

TEST_CASE("metrics over a Unix socket: GET and HEAD are answered, other things refused") {
  RuntimeFolder folder;
  const std::string path = folder.file("metrics.sock");
  const auto server = serve_metrics("unix:" + path, sample);
  REQUIRE(server.ok());
  const std::string got = http(connected(path), "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(got.starts_with("HTTP/1.1 200 OK\r\n"));
  CHECK(got.find("text/plain; version=0.0.4") != std::string::npos);
  CHECK(got.find("understudy_generation{vm=\"web1\",role=\"primary\"} 3") != std::string::npos);
  const std::string head = http(connected(path), "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(head.starts_with("HTTP/1.1 200 OK\r\n"));
  CHECK(head.find("understudy_generation") == std::string::npos);
  CHECK(http(connected(path), "GET /else HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
  CHECK(http(connected(path), "DELETE /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
}

TEST_CASE("metrics: garbage, bodies, endless headers and idle connections harm nobody") {
  RuntimeFolder folder;
  const std::string path = folder.file("metrics.sock");
  const auto server = serve_metrics("unix:" + path, sample);
  REQUIRE(server.ok());
  const std::string hostile[] = {"garbage\r\n\r\n", std::string(100, '\0') + "\r\n\r\n",
                                 "GET /metrics HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\nx",
                                 "GET / HTTP/1.1\r\nX: " + std::string(1 << 20, 'y') + "\r\n\r\n",
                                 "GET /" + std::string(1 << 20, 'z') + " HTTP/1.1\r\n\r\n"};
  for (const std::string& request : hostile) http(connected(path), request);
  std::vector<Fd> idle;
  for (int i = 0; i < 8; ++i) idle.push_back(connected(path));
  CHECK(http(connected(path), "GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200"));
}

TEST_CASE(
    "metrics at a loopback port are served; other addresses are MET-001, taken ones MET-002") {
  const auto server = serve_metrics("127.0.0.1:0", sample);
  REQUIRE(server.ok());
  CHECK((*server)->where().starts_with("127.0.0.1:"));
  CHECK((*server)->where() != "127.0.0.1:0");
  const auto taken = serve_metrics((*server)->where(), sample);
  REQUIRE_FALSE(taken.ok());
  CHECK(taken.error().id == "MET-002");
  for (const char* where : {"", "unix:", "0.0.0.0:9100", "192.0.2.1:9100", "localhost", "[::]:9100",
                            "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:80x"}) {
    const auto refused = serve_metrics(where, sample);
    REQUIRE_MESSAGE(!refused.ok(), where);
    CHECK(refused.error().id == "MET-001");
  }
}

TEST_CASE("metrics take over a socket that nobody listens at, and no file and no live one") {
  RuntimeFolder folder;
  const std::string path = folder.file("m.sock");
  ::close(listen_unix(path)->release());
  CHECK(std::filesystem::exists(path));
  {
    const auto server = serve_metrics("unix:" + path, sample);
    REQUIRE(server.ok());
    CHECK(serve_metrics("unix:" + path, sample).error().id == "MET-002");
  }
  CHECK_FALSE(std::filesystem::exists(path));
  std::ofstream(folder.file("file")) << "precious";
  CHECK(serve_metrics("unix:" + folder.file("file"), sample).error().id == "MET-002");
  CHECK(contents(folder.file("file")) == "precious");
}

TEST_CASE("events are appended as one JSON object a line with schema, time, VM, name and detail") {
  RuntimeFolder folder;
  const std::string path = folder.file("events");
  for (int run = 0; run < 2; ++run) {
    const auto log = EventLog::open(path, "web1");
    REQUIRE(log.ok());
    (*log)->write("protected", "with \"10.0.0.2\"\n\xff");
    const json seen = json::parse(contents(path).substr(0, contents(path).find('\n')));
    CHECK(seen["schema"] == "understudy-event-1");
    CHECK(seen["vm"] == "web1");
    CHECK(seen["event"] == "protected");
    CHECK(seen["detail"] == "with \"10.0.0.2\"\n\xef\xbf\xbd");
    CHECK(seen["time"].get<std::string>().size() == 24);
  }
  CHECK(EventLog::open(folder.file("missing/x"), "web1").error().id == "EVT-001");
}

TEST_CASE("events from many threads stay whole lines") {
  RuntimeFolder folder;
  const std::string path = folder.file("events");
  const auto log = EventLog::open(path, "web1");
  REQUIRE(log.ok());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 250; ++i) (*log)->write("tick", std::string(300, 'd'));
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::istringstream lines(contents(path));
  size_t whole = 0;
  for (std::string line; std::getline(lines, line);)
    whole += !json::parse(line, nullptr, false).is_discarded();
  CHECK(whole == 1000);
}

TEST_CASE("a pipe that is full or read by nobody loses events and does not stop the caller") {
  RuntimeFolder folder;
  const std::string path = folder.file("pipe");
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  CHECK(EventLog::open(path, "web1").error().id == "EVT-001");  // nobody reads
  const int reader = ::open(path.c_str(), O_RDONLY | O_NONBLOCK);
  REQUIRE(reader >= 0);
  const auto log = EventLog::open(path, "web1");
  REQUIRE(log.ok());
  for (int i = 0; i < 1000; ++i) (*log)->write("tick", std::string(300, 'd'));  // 64 KiB fit
  ::close(reader);
  (*log)->write("tick", "to nobody: EPIPE");
}
