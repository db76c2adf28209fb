#include "hv/kvm/model/fiber.h"

#include <cstdint>
#include <sys/mman.h>

#include "base/check.h"

#if defined(__SANITIZE_ADDRESS__)
#define US_FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define US_FIBER_ASAN 1
#endif
#endif
#ifdef US_FIBER_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

namespace us::hv::kvm::model {
namespace {

constexpr size_t kStackBytes = size_t{8} << 20;

}  // namespace

Fiber::Fiber(std::function<void()> body) : body_(std::move(body)) {
  stack_ = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  US_CHECK(stack_ != MAP_FAILED, "no stack for a fiber");
  US_CHECK(getcontext(&inside_) == 0);
  inside_.uc_stack.ss_sp = stack_;
  inside_.uc_stack.ss_size = kStackBytes;
  inside_.uc_link = nullptr;
  const auto self = reinterpret_cast<uintptr_t>(this);
  makecontext(&inside_, reinterpret_cast<void (*)()>(&Fiber::start), 2,
              static_cast<unsigned>(self >> 32), static_cast<unsigned>(self));
}

Fiber::~Fiber() { munmap(stack_, kStackBytes); }

void Fiber::start(unsigned high, unsigned low) {
  auto* self = reinterpret_cast<Fiber*>(uintptr_t{high} << 32 | low);
#ifdef US_FIBER_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &self->outer_bottom_, &self->outer_size_);
#endif
  self->body_();
  US_CHECK(false, "a fiber's body returned");
}

void Fiber::switch_to(ucontext_t& from, ucontext_t& to, bool into_body) {
#ifdef US_FIBER_ASAN
  void** save = into_body ? &outer_fake_ : &inner_fake_;
  __sanitizer_start_switch_fiber(save, into_body ? stack_ : outer_bottom_,
                                 into_body ? kStackBytes : outer_size_);
  US_CHECK(swapcontext(&from, &to) == 0);
  __sanitizer_finish_switch_fiber(*save, into_body ? nullptr : &outer_bottom_,
                                  into_body ? nullptr : &outer_size_);
#else
  US_CHECK(swapcontext(&from, &to) == 0);
#endif
}

void Fiber::resume() { switch_to(outside_, inside_, true); }
void Fiber::pause() { switch_to(inside_, outside_, false); }

}  // namespace us::hv::kvm::model
