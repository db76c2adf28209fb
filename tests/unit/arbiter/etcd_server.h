// A real etcd of one member on free loopback ports, for as long as this object lives.
#pragma once

#include <memory>
#include <string>

#include "tests/unit/arbiter/rig.h"

namespace us::replay::testing {

class EtcdServer {
 public:
  EtcdServer();
  // Nothing where there is no etcd program; then it has said so on stderr.
  static std::unique_ptr<EtcdServer> start();
  ~EtcdServer();
  std::string endpoint() const;  // "127.0.0.1:PORT"
  void stop();                   // kill -9
  void restart();                // on the same ports and data
  void freeze(bool frozen);      // it takes connections and does not answer

 private:
  bool launch();
  bool serves() const;
  TestFolder folder_;  // in memory where that is possible: how fast disks are is not the question
  std::string program_;
  unsigned client_port_ = 0, peer_port_ = 0;
  int pid_ = -1;
};

// A loopback port that nobody has right now.
unsigned free_port();

}  // namespace us::replay::testing
