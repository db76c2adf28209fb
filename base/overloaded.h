// One callable out of several lambdas, for std::visit.
#pragma once

namespace us {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

}  // namespace us
