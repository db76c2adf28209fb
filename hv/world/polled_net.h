// A backend over one descriptor that gives and takes whole frames: TAP and VDE.
#pragma once

#include <atomic>
#include <thread>

#include "hv/world/net.h"
#include "hv/world/thread_support.h"

namespace us::hv {

class PolledNet : public NetBackend {
 public:
  explicit PolledNet(FrameHandler handler) : handler_(std::move(handler)) {}

  void send(ByteSpan frame) final;
  void stop() final;
  uint64_t dropped() const final { return dropped_; }

 protected:
  // The last thing a ready-made backend does; its destructor must call stop().
  void start(const char* thread_name, int fd);

  // One frame without blocking; bytes moved, or -1.
  virtual ssize_t read_frame(uint8_t* buffer, size_t size) = 0;
  virtual ssize_t write_frame(const uint8_t* frame, size_t size) = 0;

 private:
  void run(int fd);
  bool take_frames(Bytes& buffer);

  FrameHandler handler_;
  Wake wake_;
  std::atomic<bool> stopped_{false};
  std::atomic<uint64_t> dropped_{0};
  std::thread thread_;  // owns the reading side
};

}  // namespace us::hv
