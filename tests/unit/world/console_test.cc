#include "hv/world/console.h"

#include <atomic>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>

#include "tests/unit/world/support.h"

using namespace us;
using namespace us::hv;
using namespace us::hv::testing;

namespace {

struct Pipe {
  Fd read, write;
  Pipe() {
    int fds[2];
    US_CHECK(::pipe2(fds, O_CLOEXEC) == 0);
    read = Fd(fds[0]);
    write = Fd(fds[1]);
  }
};

Bytes bytes_of(const std::string& text) { return Bytes(text.begin(), text.end()); }

// Everything typed so far, joined, once it has as many bytes as expected.
struct Listener {
  Mailbox<Bytes> typed;
  Mailbox<int> quits, buttons;
  ConsoleHandlers handlers() {
    return {.typed = [this](Bytes b) { typed.put(std::move(b)); },
            .quit = [this] { quits.put(1); },
            .power_button = [this] { buttons.put(1); }};
  }
  Bytes receive(size_t size) {
    Bytes all;
    while (all.size() < size) {
      const auto next = typed.take();
      if (!next) break;
      all.insert(all.end(), next->begin(), next->end());
    }
    return all;
  }
};

void type(int fd, const std::string& text) {
  REQUIRE(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

}  // namespace

TEST_CASE("key filter: Ctrl-A x quits, p is the power button, Ctrl-A Ctrl-A is one Ctrl-A") {
  KeyFilter filter;
  Bytes out;
  size_t taken = 0;
  CHECK(filter.feed(bytes_of("ab\x01\x01"
                             "c\x01"
                             "ad\x01ze"),
                    out, taken) == KeyFilter::Action::kNone);
  CHECK(out == bytes_of("ab\x01"
                        "c\x01"
                        "d\x01ze"));
  out.clear();
  CHECK(filter.feed(bytes_of("q\x01"), out, taken) == KeyFilter::Action::kNone);
  CHECK(filter.feed(bytes_of("prest"), out, taken) == KeyFilter::Action::kPowerButton);
  CHECK(taken == 1);
  CHECK(out == bytes_of("q"));
  CHECK(filter.feed(bytes_of("\x01xyz"), out, taken) == KeyFilter::Action::kQuit);
  CHECK(taken == 2);
}

TEST_CASE(
    "piped input reaches the guest unchanged, Ctrl-A included, and output goes out in order") {
  Pipe in, out;
  Listener listener;
  ConsoleBackend console({.in_fd = in.read.get(), .out_fd = out.write.get()}, listener.handlers());
  CHECK_FALSE(console.on_terminal());
  const std::string script = "echo \x01x\nexit\n";
  type(in.write.get(), script);
  CHECK(listener.receive(script.size()) == bytes_of(script));
  console.write(bytes_of("hello "));
  console.write(bytes_of("world"));
  console.flush();
  char text[32];
  REQUIRE(::read(out.read.get(), text, sizeof text) == 11);
  CHECK(std::string(text, 11) == "hello world");
  console.stop();
  console.write(bytes_of("late"));
  CHECK(listener.quits.size() == 0);
}

TEST_CASE("the end of input and a closed output end nothing but themselves") {
  Pipe in, out;
  Listener listener;
  ConsoleBackend console({.in_fd = in.read.get(), .out_fd = out.write.get()}, listener.handlers());
  in.write = Fd();
  out.read = Fd();
  for (int i = 0; i < 10; ++i) {
    console.write(bytes_of(std::string(100'000, 'x')));
    console.flush();
  }
  console.stop();
  CHECK(listener.typed.size() == 0);
}

TEST_CASE(
    "behind a gate, text past 1 MiB that nobody reads is taken at once and the console is full") {
  Pipe in, out;
  Listener listener;
  ConsoleBackend console({.in_fd = in.read.get(), .out_fd = out.write.get(), .write_waits = false},
                         listener.handlers());
  CHECK_FALSE(console.full());
  const std::string text(700'000, 'x');
  // The pipe holds 64 KiB; whether the writer has the rest in hand or not, it waits.
  for (int i = 0; i < 4; ++i) console.write(bytes_of(text));
  CHECK(console.full());
  std::thread reader([&] {
    std::vector<char> buffer(1 << 16);
    for (size_t left = 4 * text.size(); left > 0;) {
      const ssize_t n = ::read(out.read.get(), buffer.data(), std::min(left, buffer.size()));
      if (n <= 0) break;
      left -= static_cast<size_t>(n);
    }
  });
  console.flush();
  reader.join();
  CHECK_FALSE(console.full());
  console.stop();
}

TEST_CASE("a terminal is raw while the console is open, obeys the escapes, and is put back") {
  const Fd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  REQUIRE(master.valid());
  REQUIRE(::grantpt(master.get()) == 0);
  REQUIRE(::unlockpt(master.get()) == 0);
  const Fd slave(::open(::ptsname(master.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
  REQUIRE(slave.valid());
  termios before{}, during{}, after{};
  REQUIRE(::tcgetattr(slave.get(), &before) == 0);
  Listener listener;
  {
    ConsoleBackend console({.in_fd = slave.get(), .out_fd = slave.get()}, listener.handlers());
    CHECK(console.on_terminal());
    REQUIRE(::tcgetattr(slave.get(), &during) == 0);
    CHECK((during.c_lflag & (ICANON | ECHO | ISIG)) == 0);
    type(master.get(),
         "\x03"
         "a");  // Ctrl-C is the guest's
    CHECK(listener.receive(2) == bytes_of("\x03"
                                          "a"));
    type(master.get(), "\x01p\x01x");
    CHECK(listener.buttons.take().has_value());
    CHECK(listener.quits.take().has_value());
  }
  REQUIRE(::tcgetattr(slave.get(), &after) == 0);
  CHECK(after.c_lflag == before.c_lflag);
  CHECK(after.c_iflag == before.c_iflag);
}
