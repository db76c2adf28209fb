// The one digest used for states, images and streams: XXH3-128 (not cryptographic; it finds
// accidents, not adversaries).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"

namespace us {

struct Digest {
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const Digest&) const = default;
  // 32 hexadecimal digits, high word first.
  std::string hex() const;
};

// Digest of one buffer.
Digest digest_of(ByteSpan bytes);

// A digest over pieces.
class Digester {
 public:
  Digester();
  ~Digester();
  Digester(Digester&&) noexcept;
  Digester& operator=(Digester&&) noexcept;

  void add(ByteSpan bytes);
  void add_u64(uint64_t value);
  // The digest so far; more may be added afterwards.
  Digest digest() const;
  void reset();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace us
