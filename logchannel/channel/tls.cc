#include "logchannel/channel/tls.h"

#include <algorithm>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/check.h"
#include "logchannel/channel/tls_failure.h"

namespace us::log {
namespace {

// SSL_get_error() wants the thread's queue empty. It mostly is, and clearing it all the same goes
// through all of it: a sixth of what a short record costs.
void forget_errors() {
  if (ERR_peek_error() != 0) ERR_clear_error();
}

}  // namespace

// The BIO through which OpenSSL reads a Tls's input and appends to its output.
struct TlsBio {
  static int read(BIO* bio, char* into, size_t size, size_t* n) {
    Tls& tls = *static_cast<Tls*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    *n = std::min(size, tls.input_.size());
    if (*n == 0) {
      BIO_set_retry_read(bio);
      return 0;
    }
    std::copy_n(tls.input_.begin(), *n, reinterpret_cast<uint8_t*>(into));
    tls.input_ = tls.input_.subspan(*n);
    return 1;
  }

  static int write(BIO* bio, const char* from, size_t size, size_t* n) {
    Tls& tls = *static_cast<Tls*>(BIO_get_data(bio));
    // Of the vector's own type: only then is it one copy and no loop.
    const auto* bytes = reinterpret_cast<const uint8_t*>(from);
    tls.out_.insert(tls.out_.end(), bytes, bytes + size);
    *n = size;
    return 1;
  }

  static long control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

  static BIO* make(Tls* tls) {
    static BIO_METHOD* const method = [] {
      BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "us-buffers");
      US_CHECK(made != nullptr, "out of memory");
      BIO_meth_set_read_ex(made, read);
      BIO_meth_set_write_ex(made, write);
      BIO_meth_set_ctrl(made, control);
      return made;
    }();
    BIO* bio = BIO_new(method);
    US_CHECK(bio != nullptr, "out of memory");
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    return bio;
  }
};

Tls::Tls(std::shared_ptr<const TlsContext> context, Side side, Bytes& out)
    : context_(std::move(context)), ssl_(SSL_new(context_->get())), out_(out) {
  US_CHECK(ssl_ != nullptr, "out of memory");
  BIO* bio = TlsBio::make(this);
  SSL_set_bio(ssl_, bio, bio);
  if (side == Side::kServer) {
    SSL_set_accept_state(ssl_);
  } else {
    SSL_set_connect_state(ssl_);
  }
}

Tls::~Tls() { SSL_free(ssl_); }

Tls::Step Tls::step_of(int result, bool handshaking) {
  switch (SSL_get_error(ssl_, result)) {
    case SSL_ERROR_WANT_READ: return Step::kWantsInput;
    case SSL_ERROR_ZERO_RETURN: return Step::kClosed;
    default: break;
  }
  failure_ = tls_failure(context_->kind(), handshaking);
  return Step::kFailed;
}

Tls::Step Tls::handshake() {
  forget_errors();
  const int result = SSL_do_handshake(ssl_);
  if (result != 1) return step_of(result, true);
  // A peer with a certificate instead of the key would have been refused for want of an authority;
  // this does not lean on that.
  if (context_->kind() == CredentialKind::kPsk && SSL_session_reused(ssl_) != 1) {
    failure_ = {TlsFailure::Kind::kOtherKind, "no pre-shared key in the handshake"};
    return Step::kFailed;
  }
  return Step::kDone;
}

Tls::Step Tls::read(std::span<uint8_t> into, size_t& n) {
  forget_errors();
  const int result = SSL_read_ex(ssl_, into.data(), into.size(), &n);
  return result == 1 ? Step::kDone : step_of(result, false);
}

bool Tls::dry() const { return input_.empty() && SSL_has_pending(ssl_) == 0; }

bool Tls::write(ByteSpan bytes) {
  forget_errors();
  size_t n = 0;
  return bytes.empty() || SSL_write_ex(ssl_, bytes.data(), bytes.size(), &n) == 1;
}

void Tls::close_notify() {
  forget_errors();
  if (SSL_is_init_finished(ssl_) == 1) SSL_shutdown(ssl_);
  forget_errors();
}

}  // namespace us::log
