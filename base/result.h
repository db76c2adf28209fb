// Expected failures as values. Three lanes, never mixed: a user's error (UserError, below), a bug
// (US_CHECK), an expected outcome (a typed Result with its own error enum).
#pragma once

#include <string>
#include <type_traits>
#include <utility>
#include <variant>

#include "base/check.h"

namespace us {

// Process exit codes; documented in understudy(1). Values are stable.
enum class ExitCode : int {
  kDone = 0,
  kInternal = 1,
  kUsage = 2,
  kHostCannot = 3,
  kLogUnreadable = 4,
  kIncompatible = 5,
  kDivergence = 6,
  kStoppedAtLimit = 7,
  kPeerLost = 8,
  kRefusedToGoLive = 9,
  kGuestFailed = 10,
};

// An error a user can act on: one message with five parts and a stable id.
struct UserError {
  std::string id;  // stable and greppable, e.g. "VM-003"
  ExitCode exit_code = ExitCode::kUsage;
  std::string what;    // what failed, on what: "cannot open kernel image vmlinuz"
  std::string seen;    // what was found: "No such file or directory"
  std::string needed;  // what is needed: "a bzImage, or an ELF with a PVH note"
  std::string mend;    // how to mend it: "run `./dev guest` or pass --kernel"

  // "error[VM-003]: what\n  seen:   …\n  needed: …\n  mend:   …"; empty parts are left out.
  std::string text() const;
};

// A value or an error. `value()` on an error (and the reverse) is a bug, checked in release.
template <class T, class E = UserError>
class [[nodiscard]] Result {
  using State = std::variant<T, E>;

 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(E error) : state_(std::in_place_index<1>, std::move(error)) {}

  // Of what converts to T: a pointer to a class derived from T's.
  template <class U>
  requires(!std::is_same_v<U, T> && std::is_convertible_v<U, T>) Result(Result<U, E> other)
      : state_(other.ok() ? State(std::in_place_index<0>, std::move(other).value())
                          : State(std::in_place_index<1>, other.error())) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & {
    US_CHECK(ok());
    return *std::get_if<0>(&state_);
  }
  const T& value() const& {
    US_CHECK(ok());
    return *std::get_if<0>(&state_);
  }
  T&& value() && {
    US_CHECK(ok());
    return std::move(*std::get_if<0>(&state_));
  }
  const E& error() const {
    US_CHECK(!ok());
    return *std::get_if<1>(&state_);
  }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }

 private:
  State state_;
};

struct Done {};  // the value of a Result that only says "it worked"
using Status = Result<Done, UserError>;

}  // namespace us
