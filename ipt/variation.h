// Everything two processors may do differently while tracing the same instruction stream. The
// packet writer does it at random, from a seed, to show that nothing of it reaches the normal form.
#pragma once

#include <cstdint>

namespace us::ipt {

struct VariationConfig {
  uint64_t seed = 0;
  bool tnt_cuts = false;           // partial TNTs at any branch, short and long mixed
  bool psb_placement = false;      // PSB+ anywhere an address is known, some with little content
  bool deferred_tips = false;      // TIPs after the TNT they belong into (SDM 3C 35.4.2.3)
  bool padding = false;            // PAD
  bool transparent_exits = false;  // exits that resume where they left
  bool mode_repeats = false;       // MODE.Exec again before TIP.PGE
  bool ip_compression = false;     // less compression than possible
  bool timing = false;             // CBR, TSC, TMA, MTC, CYC, VMCS

  bool any() const {
    return tnt_cuts || psb_placement || deferred_tips || padding || transparent_exits ||
           mode_repeats || ip_compression || timing;
  }
  static VariationConfig all(uint64_t seed) {
    return {seed, true, true, true, true, true, true, true, true};
  }
};

// xorshift64*: enough for variation, and the same everywhere.
class VariationRandom {
 public:
  explicit VariationRandom(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 0x2545f4914f6cdd1d) {
    if (state_ == 0) state_ = 1;
  }
  uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1d;
  }
  // 0 … n-1; n is small and not 0.
  uint64_t below(uint64_t n) { return (next() >> 32) % n; }
  bool one_in(uint64_t n) { return below(n) == 0; }

 private:
  uint64_t state_;
};

}  // namespace us::ipt
