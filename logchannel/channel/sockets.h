// What every TCP socket of the channel gets.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <fcntl.h>
#include <string>

namespace us::log {

inline void keep_from_children(int fd) { ::fcntl(fd, F_SETFD, FD_CLOEXEC); }

inline void prepare(boost::asio::ip::tcp::socket& socket) {
  boost::system::error_code ignored;
  socket.set_option(boost::asio::ip::tcp::no_delay(true), ignored);
  keep_from_children(socket.native_handle());
}

// "ADDR:PORT"; empty when the peer is gone already.
std::string peer_of(const boost::asio::ip::tcp::socket& socket);

}  // namespace us::log
