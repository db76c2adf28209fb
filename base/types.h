// Small types for quantities that must not be mixed up. Each wraps one 64-bit number.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace us {

// A number with a meaning. Same-kind values add, subtract and compare; different kinds do not.
template <class Tag>
struct Quantity {
  uint64_t value = 0;

  constexpr Quantity() = default;
  constexpr explicit Quantity(uint64_t v) : value(v) {}
  constexpr auto operator<=>(const Quantity&) const = default;
  constexpr Quantity operator+(Quantity other) const { return Quantity(value + other.value); }
  constexpr Quantity operator-(Quantity other) const { return Quantity(value - other.value); }
  constexpr Quantity operator+(uint64_t n) const { return Quantity(value + n); }
  constexpr Quantity operator-(uint64_t n) const { return Quantity(value - n); }
  constexpr Quantity& operator+=(uint64_t n) {
    value += n;
    return *this;
  }
};

// Conditional branches the guest has retired since it was created.
using Branches = Quantity<struct BranchesTag>;
// Instructions the guest has retired since it was created (a REP one is one per 64 Ki elements).
using Instructions = Quantity<struct InstructionsTag>;
// A position in the log, in bytes from its start.
using LogPosition = Quantity<struct LogPositionTag>;
// A reading of the guest's time stamp counter, in ticks.
using GuestTsc = Quantity<struct GuestTscTag>;
// A guest physical address.
using GuestPhys = Quantity<struct GuestPhysTag>;
// A guest virtual (linear) address.
using GuestVirt = Quantity<struct GuestVirtTag>;

constexpr uint64_t kPageSize = 4096;
constexpr uint64_t kPageMask = kPageSize - 1;

}  // namespace us

template <class Tag>
struct std::hash<us::Quantity<Tag>> {
  size_t operator()(us::Quantity<Tag> q) const noexcept { return std::hash<uint64_t>{}(q.value); }
};
