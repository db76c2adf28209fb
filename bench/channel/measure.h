// The channel against what it is made of: the same bytes over plain Asio streams, the same
// exchanges over plain sockets.
#pragma once

#include <chrono>
#include <cstddef>
#include <vector>

namespace us::log::bench {

constexpr size_t kPingBytes = 200;  // a small frame: a received packet's record and an anchor
constexpr size_t kPongBytes = 37;   // an ack on the wire
constexpr size_t kPingsAtOnce = 2000;

using Seconds = std::chrono::duration<double>;
using Micros = std::chrono::duration<double, std::micro>;

// `total` bytes in writes of `write_bytes`, until the last one was received.
Seconds link_throughput(bool tls, size_t total, size_t write_bytes);
Seconds plain_throughput(bool tls, size_t total, size_t write_bytes);

// Times from handing over the ping to having the pong, kPingsAtOnce of them.
std::vector<Micros> link_pings(bool tls);
std::vector<Micros> plain_pings();

}  // namespace us::log::bench
