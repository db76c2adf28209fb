// The guest's console on this process's terminal (or pipes): keys in, text out, each on a thread
// of its own.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <termios.h>
#include <thread>

#include "base/bytes.h"
#include "hv/world/thread_support.h"

namespace us::hv {

// Finds the escapes in what is typed: Ctrl-A x quits, Ctrl-A p presses the power button, Ctrl-A
// Ctrl-A (or Ctrl-A a) is a Ctrl-A for the guest; after anything else both keys go to the guest.
class KeyFilter {
 public:
  enum class Action : uint8_t { kNone, kQuit, kPowerButton };
  // Appends to `out` what the guest gets; returns at the first action, `taken` bytes in.
  Action feed(ByteSpan typed, Bytes& out, size_t& taken);

 private:
  bool escaped_ = false;
};

struct ConsoleConfig {
  int in_fd = 0;
  int out_fd = 1;
  // While more than 1 MiB waits for a slow reader, write() waits too. Without this it never does,
  // and whoever makes the text asks full().
  bool write_waits = true;
};

struct ConsoleHandlers {
  // Called on the reading thread; may block, which holds back whoever types.
  std::function<void(Bytes bytes)> typed;
  std::function<void()> quit;
  std::function<void()> power_button;
};

class ConsoleBackend {
 public:
  // On a terminal, raw mode until stop(); the terminal is also put back when the process dies of a
  // failed check. Elsewhere bytes are taken as they are, without escapes, until the end of input.
  ConsoleBackend(const ConsoleConfig& config, ConsoleHandlers handlers);
  ~ConsoleBackend();
  ConsoleBackend(const ConsoleBackend&) = delete;
  ConsoleBackend& operator=(const ConsoleBackend&) = delete;

  // Queues text for the terminal; see ConsoleConfig::write_waits.
  void write(ByteSpan bytes);
  // At least 1 MiB is not yet written out. Any thread.
  bool full() const;
  // Waits until everything queued is out (or the other end is gone).
  void flush();
  // Flushes, restores the terminal, ends the threads. No handler call begins afterwards.
  void stop();

  bool on_terminal() const { return raw_; }

 private:
  void enter_raw_mode();
  void restore_terminal();
  void read_keys();
  bool handle_typed(ByteSpan typed);
  void write_text();

  const ConsoleConfig config_;
  const ConsoleHandlers handlers_;
  bool raw_ = false;
  termios saved_{};
  int dump_token_ = -1;
  KeyFilter filter_;
  Wake wake_;
  std::atomic<bool> stopped_{false};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Bytes queue_;              // under mutex_: what the writer has not taken yet
  size_t waiting_ = 0;       // under mutex_: bytes in the queue and in the writer's hand
  bool end_writer_ = false;  // under mutex_
  std::thread reader_;
  std::thread writer_;
};

}  // namespace us::hv
