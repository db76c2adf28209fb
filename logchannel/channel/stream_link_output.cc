// The way out of a StreamLink.
#include <boost/asio/post.hpp>
#include <cerrno>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/check.h"
#include "logchannel/channel/stream_link.h"

namespace us::log {
namespace {

// A TLS record's text (RFC 8446 5.1), and how much of them goes to the kernel at a time.
constexpr size_t kRecordBytes = 16 * 1024, kPushBytes = 64 * 1024;
// Copied, so that header and frame are one piece for the kernel.
constexpr size_t kSmallFrame = 4 * 1024;
constexpr int kSendFlags = MSG_DONTWAIT | MSG_NOSIGNAL;
// Chunks of the queue given to the kernel at a time.
constexpr int kPiecesMax = 16;
// Rounds of reading after the way out broke: more than a socket's buffer holds.
constexpr int kLastReads = 16;

}  // namespace

void StreamLink::post(void (StreamLink::*what)()) {
  if (fd_ < 0) return;
  asio::post(setup_.core->io, [self = shared_from_this(), what] { (*self.*what)(); });
}

void StreamLink::send(const Message& message) {
  const Lock lock(mutex_);
  if (!may_send_) return;
  plain_.clear();
  encode(message, plain_);
  if (tls_) {
    write_tls(plain_);
    flush_tls();
  } else {
    give(plain_);
  }
  settle();
}

void StreamLink::send_frame(ByteSpan frame) {
  const Lock lock(mutex_);
  if (!may_send_) return;
  if (tls_) {
    send_frame_tls(frame);
  } else if (frame.size() <= kSmallFrame) {
    start_frame(frame.size(), frame);
    give(plain_);
  } else {
    give(frame_message_header(frame.size()), frame);
  }
  settle();
}

void StreamLink::send_frame_tls(ByteSpan frame) {
  // The odd bytes go with the header, the rest in full records and without a copy.
  const size_t first = frame.size() % kRecordBytes;
  start_frame(frame.size(), frame.subspan(0, first));
  write_tls(plain_);
  for (size_t at = first; at < frame.size() && may_send_; at += kRecordBytes) {
    write_tls(frame.subspan(at, kRecordBytes));
    if (tls_out_.size() >= kPushBytes) flush_tls();
  }
  flush_tls();
}

// plain_ becomes the message's start.
void StreamLink::start_frame(size_t frame_bytes, ByteSpan first) {
  const auto header = frame_message_header(frame_bytes);
  plain_.assign(header.begin(), header.end());
  plain_.insert(plain_.end(), first.begin(), first.end());
}

void StreamLink::write_tls(ByteSpan bytes) {
  if (!tls_->write(bytes)) output_failed(EPROTO);
}

void StreamLink::flush_tls() {
  if (output_error_ == 0) give(tls_out_);
  tls_out_.clear();
}

// To the kernel, as far as it takes them and nothing waits before them; the rest is queued.
void StreamLink::give(ByteSpan first, ByteSpan second) {
  if (first.empty() && second.empty()) return;
  if (queue_.empty()) {
    iovec pieces[] = {{const_cast<uint8_t*>(first.data()), first.size()},
                      {const_cast<uint8_t*>(second.data()), second.size()}};
    const size_t taken = offer(pieces, second.empty() ? 1 : 2);
    const size_t of_first = std::min(taken, first.size());
    first = first.subspan(of_first);
    second = second.subspan(taken - of_first);
  }
  if (output_error_ != 0) return;
  queue_.append(first);
  queue_.append(second);
}

// What is queued goes to the kernel, as far as it takes it.
void StreamLink::push() {
  while (!queue_.empty()) {
    iovec pieces[kPiecesMax];
    const int count = queue_.front(pieces, kPiecesMax);
    const size_t taken = offer(pieces, count);
    if (taken == 0) return;
    queue_.pop(taken);
  }
}

// How many bytes the kernel took.
size_t StreamLink::offer(iovec* pieces, int count) {
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = static_cast<size_t>(count);
  ssize_t n;
  do {
    n = count == 1 ? ::send(fd_, pieces->iov_base, pieces->iov_len, kSendFlags)
                   : ::sendmsg(fd_, &message, kSendFlags);
  } while (n < 0 && errno == EINTR);
  if (n < 0) {
    if (errno != EAGAIN && errno != EWOULDBLOCK) output_failed(errno);
    return 0;
  }
  counters_.bytes_sent += static_cast<uint64_t>(n);
  return static_cast<size_t>(n);
}

// After the queue changed.
void StreamLink::settle() {
  counters_.bytes_waiting = queue_.size();
  if (queue_.empty() || write_armed_) return;
  write_armed_ = true;
  post(&StreamLink::wait_writable);
}

void StreamLink::output_failed(int error) {
  if (output_error_ != 0) return;
  output_error_ = error;
  may_send_ = false;
  queue_.clear();
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
    empty = queue_.empty();
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
    flush_tls();
    settle();
    empty = queue_.empty();
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
