#include "logchannel/channel/stream_link.h"

#include <algorithm>
#include <cerrno>
#include <sys/socket.h>

#include "base/check.h"

namespace us::log {
namespace {

// Until it has greeted, a peer gets a small buffer.
constexpr size_t kWireBytesFirst = 20 * 1024, kWireBytes = 256 * 1024;
// One TLS record's worth (RFC 8446 5.1).
constexpr size_t kTextBytes = 16 * 1024;
// Full buffers read before others on the thread get their turn.
constexpr int kReadsAtOnce = 4;
// Alerts (RFC 8446 6.2) by which a peer learns what this side speaks.
constexpr uint8_t kUnexpectedMessage = 10, kProtocolVersion13 = 70;

}  // namespace

StreamLink::StreamLink(Setup setup, tcp::socket socket)
    : setup_(std::move(setup)),
      fd_(socket.native_handle()),
      socket_(std::move(socket)),
      deadline_(setup_.core->io),
      shaking_(setup_.tls != nullptr),
      wire_(kWireBytesFirst) {
  if (!setup_.tls) return;
  const bool connected = setup_.role == Role::kConnected;
  tls_ = std::make_unique<Tls>(setup_.tls, connected ? Tls::Side::kClient : Tls::Side::kServer,
                               tls_out_);
  text_.resize(kTextBytes);
}

StreamLink::~StreamLink() { US_CHECK(over_, "a link dropped before its end"); }

void StreamLink::start() {
  setup_.core->links.insert(shared_from_this());
  set_deadline(setup_.patience);
  if (!shaking_ && setup_.role == Role::kConnected) come_up();
  pump();
}

// --- Reading

void StreamLink::wait_readable() {
  if (over_ || read_armed_) return;
  read_armed_ = true;
  socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](auto error) {
    self->read_armed_ = false;
    if (!error && !self->over_) self->pump();
  });
}

void StreamLink::resume() {
  if (!over_ && !read_armed_) pump();
}

void StreamLink::pump() {
  for (int i = 0; i < kReadsAtOnce; ++i) {
    if (lingering_) return discard();
    if (!consume()) return;
    bool drained = false;
    if (!receive(drained)) return;
    if (drained) break;
  }
  if (consume()) wait_readable();
}

// False: the link is over, or nothing came and it waits.
bool StreamLink::receive(bool& drained) {
  if (reader_.greeted() && wire_.size() < kWireBytes) wire_ = Bytes(kWireBytes);
  ssize_t n;
  do {
    n = ::recv(fd_, wire_.data(), wire_.size(), MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
    wait_readable();
    return false;
  }
  if (n < 0) {
    end(ended_by_network(setup_.peer, errno));
    return false;
  }
  if (n == 0) {
    end_at_eof();
    return false;
  }
  wire_at_ = 0;
  wire_end_ = static_cast<size_t>(n);
  tls_dry_ = false;
  drained = wire_end_ < wire_.size();
  counters_.bytes_received += wire_end_;
  if (first_bytes_.size() < kSpeechBytes) {
    const size_t more = std::min(kSpeechBytes - first_bytes_.size(), wire_end_);
    first_bytes_.insert(first_bytes_.end(), wire_.begin(), wire_.begin() + more);
  }
  return true;
}

// Looks at everything that came. False: no more is wanted, as the link is over or paused.
bool StreamLink::consume() {
  while (!over_ && !paused_ && !closing_) {
    if (shaking_) {
      if (!shake()) return !over_;
      continue;
    }
    const ByteSpan text = next_text();
    if (text.empty()) return !over_;
    skip_text(reader_.feed(text));
    take_message();
  }
  return false;
}

// False: it waits for bytes, or the link is over.
bool StreamLink::shake() {
  Tls::Step step;
  {
    const Lock lock(mutex_);
    tls_->set_input(ByteSpan(wire_).subspan(wire_at_, wire_end_ - wire_at_));
    step = tls_->handshake();
    wire_at_ = wire_end_ - tls_->unread();
    flush_tls();
    settle();
  }
  if (step == Tls::Step::kWantsInput) return false;
  if (step != Tls::Step::kDone) {
    // To bytes that are no TLS, OpenSSL says nothing.
    if (speech_of(first_bytes_) == Speech::kPlain) say_alert(kUnexpectedMessage);
    end(ended_by_tls(setup_.peer, tls_->failure(), first_bytes_));
    return false;
  }
  shaking_ = false;
  if (setup_.role == Role::kConnected) come_up();
  return true;
}

// Bytes of messages that are here; empty: none, or the link is over.
ByteSpan StreamLink::next_text() {
  if (!setup_.tls) return ByteSpan(wire_).subspan(wire_at_, wire_end_ - wire_at_);
  if (text_at_ < text_end_) return ByteSpan(text_).subspan(text_at_, text_end_ - text_at_);
  if (tls_dry_) return {};
  Tls::Step step;
  size_t n = 0;
  {
    const Lock lock(mutex_);
    tls_->set_input(ByteSpan(wire_).subspan(wire_at_, wire_end_ - wire_at_));
    step = tls_->read(text_, n);
    wire_at_ = wire_end_ - tls_->unread();
    tls_dry_ = step == Tls::Step::kWantsInput || (step == Tls::Step::kDone && tls_->dry());
    // TLS answers by itself to a change of keys, and to what it does not like.
    if (!tls_out_.empty()) {
      flush_tls();
      settle();
    }
  }
  text_at_ = 0;
  text_end_ = step == Tls::Step::kDone ? n : 0;
  if (step == Tls::Step::kFailed) {
    end(ended_by_tls(setup_.peer, tls_->failure(), first_bytes_));
  } else if (step == Tls::Step::kClosed) {
    end_at_eof();
  }
  return ByteSpan(text_).subspan(0, text_end_);
}

void StreamLink::skip_text(size_t bytes) { (setup_.tls ? text_at_ : wire_at_) += bytes; }

void StreamLink::take_message() {
  auto message = reader_.next();
  if (message) {
    if (message->has_value()) deliver(std::move(**message));
    return;
  }
  const auto kind = setup_.tls ? setup_.tls->kind() : CredentialKind::kPlaintext;
  if (!setup_.tls && speech_of(first_bytes_) == Speech::kTls) say_alert(kProtocolVersion13);
  end(ended_by_message(setup_.peer, kind, message.error(), first_bytes_));
}

void StreamLink::deliver(Message message) {
  const MessageType type = type_of(message);
  // The first message is the greeting: the reader saw to that.
  if (type == MessageType::kHello || type == MessageType::kWelcome) deadline_.cancel();
  if (!up_) come_up();
  const bool wanted = !handlers_.message || handlers_.message(std::move(message));
  if (!wanted) end(ended_by_owner(setup_.peer, type));
}

void StreamLink::come_up() {
  up_ = true;
  {
    const Lock lock(mutex_);
    may_send_ = true;
  }
  if (setup_.role == Role::kConnected) set_deadline(kGreetingLimit);
  const auto up = std::exchange(setup_.up, nullptr);
  setup_.failed = nullptr;
  handlers_ = up(shared_from_this());
}

void StreamLink::pause_reading(bool paused) {
  if (paused_.exchange(paused) && !paused) {
    const Lock lock(mutex_);
    post(&StreamLink::resume);
  }
}

// --- Deadlines and the end

void StreamLink::set_deadline(std::chrono::milliseconds limit) {
  deadline_.expires_after(limit);
  deadline_.async_wait([self = shared_from_this()](auto error) {
    const auto now = std::chrono::steady_clock::now();
    // One that was moved while its handler was on the way does not count.
    if (!error && !self->over_ && self->deadline_.expiry() <= now) self->on_deadline();
  });
}

void StreamLink::on_deadline() {
  if (lingering_) return end(ended_here());
  // A greeting that came in time, and this handler was on the way already.
  if (reader_.greeted()) return;
  const bool patience = !up_ && setup_.role == Role::kConnected;
  const auto limit = patience ? setup_.patience : kGreetingLimit;
  end(ended_out_of_time(setup_.peer, shaking_ ? "TLS handshake" : "greeting", limit));
}

void StreamLink::discard() {
  while (!over_) {
    const ssize_t n = ::recv(fd_, wire_.data(), wire_.size(), MSG_DONTWAIT);
    if (n > 0) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return wait_readable();
    if (n < 0 && errno == EINTR) continue;
    end(ended_here());
  }
}

// A fatal one, in the clear.
void StreamLink::say_alert(uint8_t description) {
  const uint8_t record[] = {21, 3, 3, 0, 2, 2, description};
  [[maybe_unused]] const ssize_t n =
      ::send(fd_, record, sizeof record, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void StreamLink::end_at_eof() {
  if (!setup_.tls && !reader_.greeted() && speech_of(first_bytes_) == Speech::kTls) {
    return end(ended_by_message(setup_.peer, CredentialKind::kPlaintext, MessageError::kNotOurs,
                                first_bytes_));
  }
  if (!up_) {
    const char* seen = first_bytes_.empty() ? "it ended without a word" : "it ended";
    return end(ended_in_handshake(setup_.peer, seen));
  }
  const bool torn = reader_.partial_bytes() != 0;
  end(ended_by_peer(setup_.peer, torn ? "it ended inside a message" : "it ended"));
}

void StreamLink::end(const LinkEnd& why) {
  if (std::exchange(over_, true)) return;
  const auto self = shared_from_this();
  {
    const Lock lock(mutex_);
    // Bytes that were never read would make the kernel reset the connection, and the peer lose our
    // last words.
    ::shutdown(fd_, SHUT_WR);
    [[maybe_unused]] const ssize_t n = ::recv(fd_, wire_.data(), wire_.size(), MSG_DONTWAIT);
    fd_ = -1;
    may_send_ = false;
    tls_.reset();
    queue_ = SendQueue();
    counters_.bytes_waiting = 0;
  }
  boost::system::error_code ignored;
  socket_.close(ignored);
  deadline_.cancel();
  setup_.core->links.erase(self);
  setup_.up = nullptr;
  const auto failed = std::exchange(setup_.failed, nullptr);
  const auto handlers = std::exchange(handlers_, Handlers());
  if (!up_ && failed) failed(why);
  if (up_ && handlers.closed) handlers.closed(why);
}

}  // namespace us::log
