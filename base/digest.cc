#include "base/digest.h"

#include <fmt/format.h>
#include <xxhash.h>

#include "base/check.h"

namespace us {

struct Digester::State {
  XXH3_state_t* xxh = XXH3_createState();
  ~State() { XXH3_freeState(xxh); }
};

std::string Digest::hex() const { return fmt::format("{:016x}{:016x}", high, low); }

Digest digest_of(ByteSpan bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.low64, hash.high64};
}

Digester::Digester() : state_(std::make_unique<State>()) {
  US_CHECK(state_->xxh != nullptr, "out of memory for a digest state");
  reset();
}
Digester::~Digester() = default;
Digester::Digester(Digester&&) noexcept = default;
Digester& Digester::operator=(Digester&&) noexcept = default;

void Digester::add(ByteSpan bytes) { XXH3_128bits_update(state_->xxh, bytes.data(), bytes.size()); }

void Digester::add_u64(uint64_t value) { XXH3_128bits_update(state_->xxh, &value, sizeof value); }

Digest Digester::digest() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_->xxh);
  return {hash.low64, hash.high64};
}

void Digester::reset() { XXH3_128bits_reset(state_->xxh); }

}  // namespace us
