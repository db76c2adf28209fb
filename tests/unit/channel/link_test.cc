#include "logchannel/channel/link.h"

#include <doctest/doctest.h>

#include "pair.h"

namespace us::log {

TEST_CASE("two sides greet, and messages go both ways") {
  for (const Credentials& credentials : {plaintext(), psk()}) {
    Pair pair(credentials);
    pair.greet();
    Ack ack;
    ack.next_sequence = 17;
    pair.to_primary->send(ack);
    CHECK(pair.primary.messages.take() == Message(ack));
    Heartbeat heartbeat;
    heartbeat.sent_ns = 5;
    pair.to_secondary->send(heartbeat);
    CHECK(pair.secondary.messages.take() == Message(heartbeat));
    const Bytes frame(100'000, 0x5a);
    pair.to_secondary->send_frame(frame);
    CHECK(pair.secondary.messages.take() == Message(FrameMessage{frame}));
  }
}

}  // namespace us::log
