// The way out of a StreamLink.
#include <boost/asio/post.hpp>
#include <cerrno>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/check.h"
#include "logchannel/channel/stream_link.h"

namespace us::log {
namespace {

constexpr int kSendFlags = MSG_DONTWAIT | MSG_NOSIGNAL;
// A TLS record's text (RFC 8446 5.1), and how much of them goes to the kernel at a time.
constexpr size_t kRecordBytes = 16 * 1024, kPushBytes = 64 * 1024;
// An emptied queue larger than this gives its memory back.
constexpr size_t kQueueKept = 1024 * 1024;
// Rounds of reading after the way out broke: more than a socket's buffer holds.
constexpr int kLastReads = 16;

bool would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK; }

}  // namespace

void StreamLink::post(void (StreamLink::*what)()) {
  if (fd_ < 0) return;
  asio::post(setup_.core->io, [self = shared_from_this(), what] { (*self.*what)(); });
}

void StreamLink::send(const Message& message) {
  const Lock lock(mutex_);
  if (!may_send_) return;
  const bool at_once = waiting() == 0;
  if (tls_) {
    scratch_.clear();
    encode(message, scratch_);
    write_tls(scratch_);
  } else {
    encode(message, out_);
  }
  if (at_once) push();
  settle();
}

void StreamLink::send_frame(ByteSpan frame) {
  const Lock lock(mutex_);
  if (!may_send_) return;
  const bool at_once = waiting() == 0;
  if (tls_) {
    queue_frame_tls(frame, at_once);
  } else {
    queue_frame_plain(frame, at_once);
  }
  settle();
}

void StreamLink::queue_frame_tls(ByteSpan frame, bool at_once) {
  const auto header = frame_message_header(frame.size());
  const size_t first = std::min(frame.size(), kRecordBytes - header.size());
  scratch_.assign(header.begin(), header.end());
  scratch_.insert(scratch_.end(), frame.begin(), frame.begin() + first);
  write_tls(scratch_);
  for (size_t at = first; at < frame.size() && may_send_; at += kRecordBytes) {
    write_tls(frame.subspan(at, std::min(kRecordBytes, frame.size() - at)));
    if (at_once && waiting() >= kPushBytes) push();
  }
  if (at_once) push();
}

void StreamLink::queue_frame_plain(ByteSpan frame, bool at_once) {
  const auto header = frame_message_header(frame.size());
  size_t sent = 0;
  if (at_once) {
    iovec parts[] = {{const_cast<uint8_t*>(header.data()), header.size()},
                     {const_cast<uint8_t*>(frame.data()), frame.size()}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    ssize_t n;
    do {
      n = ::sendmsg(fd_, &message, kSendFlags);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && !would_block(errno)) return output_failed(errno);
    sent = n < 0 ? 0 : static_cast<size_t>(n);
    counters_.bytes_sent += sent;
  }
  const size_t of_header = std::min(sent, header.size());
  out_.insert(out_.end(), header.begin() + of_header, header.end());
  out_.insert(out_.end(), frame.begin() + (sent - of_header), frame.end());
}

void StreamLink::write_tls(ByteSpan bytes) {
  if (!tls_->write(bytes)) output_failed(EPROTO);
}

void StreamLink::push() {
  while (waiting() != 0) {
    const size_t size = waiting();
    const ssize_t n = ::send(fd_, out_.data() + out_at_, size, kSendFlags);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && would_block(errno)) return;
    if (n < 0) return output_failed(errno);
    out_at_ += static_cast<size_t>(n);
    counters_.bytes_sent += static_cast<uint64_t>(n);
    if (static_cast<size_t>(n) < size) return;
  }
  out_.clear();
  out_at_ = 0;
}

void StreamLink::settle() {
  if (waiting() == 0 && out_.capacity() > kQueueKept) {
    out_ = Bytes();
  } else if (out_at_ >= kQueueKept && out_at_ >= out_.size() / 2) {
    out_.erase(out_.begin(), out_.begin() + static_cast<ptrdiff_t>(out_at_));
    out_at_ = 0;
  }
  counters_.bytes_waiting = waiting();
  if (waiting() != 0 && !write_armed_) {
    write_armed_ = true;
    post(&StreamLink::wait_writable);
  }
}

void StreamLink::output_failed(int error) {
  if (output_error_ != 0) return;
  output_error_ = error;
  may_send_ = false;
  out_.clear();
  out_at_ = 0;
  post(&StreamLink::after_output_failure);
}

// --- The network thread

void StreamLink::wait_writable() {
  if (over_) return;
  socket_.async_wait(tcp::socket::wait_write, [self = shared_from_this()](auto error) {
    if (!error && !self->over_) self->on_writable();
  });
}

void StreamLink::on_writable() {
  bool empty;
  {
    const Lock lock(mutex_);
    push();
    empty = waiting() == 0;
    if (empty) write_armed_ = false;
    settle();
  }
  if (!empty) return wait_writable();
  if (lingering_) finish_output();
}

// What the peer said before it went away is still to be read, and says more than EPIPE.
void StreamLink::after_output_failure() {
  for (int i = 0; i < kLastReads && !over_; ++i) pump();
  if (!over_) end(lingering_ ? ended_here() : ended_by_network(setup_.peer, output_error_));
}

void StreamLink::close(std::chrono::milliseconds linger) {
  const Lock lock(mutex_);
  if (closing_.exchange(true)) return;
  may_send_ = false;
  linger_ = linger;
  post(&StreamLink::start_closing);
}

void StreamLink::start_closing() {
  if (over_) return;
  bool empty;
  {
    const Lock lock(mutex_);
    if (tls_ && !shaking_ && output_error_ == 0) tls_->close_notify();
    push();
    settle();
    empty = waiting() == 0;
  }
  if (linger_.count() <= 0) return end(ended_here());
  lingering_ = true;
  set_deadline(linger_);
  if (empty) finish_output();
  discard();
}

// All is with the kernel: the peer learns that nothing follows, and its own end is waited for.
void StreamLink::finish_output() { ::shutdown(fd_, SHUT_WR); }

}  // namespace us::log
