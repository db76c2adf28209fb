// What OpenSSL's error queue means to us.
#pragma once

#include <string>

#include "logchannel/channel/tls.h"

namespace us::log {

// The thread's oldest error in OpenSSL's words; empties the queue.
std::string openssl_says();
// The same as a failure of a connection with such credentials, in its handshake or after it.
TlsFailure tls_failure(CredentialKind kind, bool handshaking);

}  // namespace us::log
