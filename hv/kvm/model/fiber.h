// A second stack that the model's guest runs on, so that KVM_RUN can return in the middle of an
// instruction, where a guest waits for a device, and go on from there with the next call.
#pragma once

#include <cstddef>
#include <functional>
#include <ucontext.h>

namespace us::hv::kvm::model {

class Fiber {
 public:
  // `body` never returns; it begins with the first resume().
  explicit Fiber(std::function<void()> body);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // From outside: runs the body until it pauses.
  void resume();
  // From the body: back to where resume() was called.
  void pause();

 private:
  static void start(unsigned high, unsigned low);
  void switch_to(ucontext_t& from, ucontext_t& to, bool into_body);

  std::function<void()> body_;
  void* stack_ = nullptr;
  ucontext_t inside_{}, outside_{};
  // What the address sanitizer must be told about stacks.
  const void* outer_bottom_ = nullptr;
  size_t outer_size_ = 0;
  void* inner_fake_ = nullptr;
  void* outer_fake_ = nullptr;
};

}  // namespace us::hv::kvm::model
