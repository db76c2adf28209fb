// A Link over a connected TCP socket. Which thread may touch what:
// - any thread, under mutex_: the way out (TLS, queue, descriptor);
// - the network thread alone: the way in, handlers, deadlines, the end.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "logchannel/channel/link.h"
#include "logchannel/channel/link_end.h"
#include "logchannel/channel/send_queue.h"
#include "logchannel/channel/tls.h"

namespace us::log {

namespace asio = boost::asio;
using asio::ip::tcp;

class StreamLink;

// What everything on the network thread shares. It outlives the thread as long as somebody holds a
// link; links that have ended leave no work in it.
struct NetworkCore {
  asio::io_context io{1};
  std::set<std::shared_ptr<StreamLink>> links{};  // those that have not ended
};

// The peer's greeting must have come by then.
constexpr std::chrono::milliseconds kGreetingLimit{5000};

class StreamLink final : public Link, public std::enable_shared_from_this<StreamLink> {
 public:
  // When the owner hears of the link: a side that connects greets first, once TLS is up; one that
  // accepts waits for the peer's greeting, so that strangers never get so far.
  enum class Role : uint8_t { kConnected, kAccepted };
  struct Setup {
    std::shared_ptr<NetworkCore> core;
    std::shared_ptr<const TlsContext> tls{};  // none: plaintext
    Role role = Role::kConnected;
    std::string peer{};
    std::chrono::milliseconds patience{kGreetingLimit};  // until the owner hears of it
    std::function<Handlers(LinkPtr)> up{};
    std::function<void(LinkEnd)> failed{};  // instead of `up`
  };
  StreamLink(Setup setup, tcp::socket socket);
  ~StreamLink() override;

  // On the network thread: start() once; end() at most once has an effect.
  void start();
  void end(const LinkEnd& why);

  void send(const Message& message) override;
  void send_frame(ByteSpan frame) override;
  void pause_reading(bool paused) override;
  void close(std::chrono::milliseconds linger) override;
  const LinkCounters& counters() const override { return counters_; }
  std::string peer() const override { return setup_.peer; }

 private:
  using Lock = std::lock_guard<std::mutex>;

  // --- The way out (stream_link_output.cc); these under mutex_.
  void send_frame_tls(ByteSpan frame);
  void start_frame(size_t frame_bytes, ByteSpan first);
  void write_tls(ByteSpan bytes);
  void flush_tls();
  void give(ByteSpan first, ByteSpan second = {});
  void push();
  size_t offer(iovec* pieces, int count);
  void settle();
  void output_failed(int error);
  void post(void (StreamLink::*what)());
  // And these on the network thread.
  void wait_writable();
  void on_writable();
  void after_output_failure();
  void start_closing();
  void finish_output();

  // --- The way in; the network thread.
  void wait_readable();
  void pump();
  bool receive(bool& drained);
  bool consume();
  bool shake();
  ByteSpan next_text();
  void skip_text(size_t bytes);
  void take_message();
  void come_up();
  void deliver(Message message);
  void resume();
  void set_deadline(std::chrono::milliseconds limit);
  void on_deadline();
  void discard();
  void end_at_eof();
  void say_alert(uint8_t description);

  Setup setup_;
  LinkCounters counters_;
  std::atomic<bool> paused_{false};
  std::atomic<bool> closing_{false};  // by us: nothing is delivered any more

  std::mutex mutex_;
  int fd_ = -1;               // written on the network thread only; -1 after the end
  bool may_send_ = false;     // up, not closing, not failed
  bool write_armed_ = false;  // the network thread waits for room, or is told to
  int output_error_ = 0;
  std::chrono::milliseconds linger_{0};
  SendQueue queue_{};  // wire bytes that the kernel did not take
  Bytes plain_{};      // a message in the making
  Bytes tls_out_{};    // what TLS made, on its way to the kernel or the queue
  std::unique_ptr<Tls> tls_;

  tcp::socket socket_;
  asio::steady_timer deadline_;
  Handlers handlers_{};
  MessageReader reader_{};
  bool shaking_ = false;    // TLS is not up yet
  bool up_ = false;         // the owner knows
  bool lingering_ = false;  // our last bytes are on their way
  bool over_ = false;
  bool read_armed_ = false;
  Bytes wire_{};  // as received; [wire_at_, wire_end_) is still to be looked at
  size_t wire_at_ = 0, wire_end_ = 0;
  bool tls_dry_ = false;  // TLS gives nothing until more of the wire comes
  Bytes text_{};          // the same for what TLS decrypted
  size_t text_at_ = 0, text_end_ = 0;
  Bytes first_bytes_{};  // the peer's, to tell strangers apart
};

}  // namespace us::log
