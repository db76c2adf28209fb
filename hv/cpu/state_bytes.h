// The architectural state as bytes: the same for every backend, so that what one saved another can
// load, and states can be compared.
#pragma once

#include "base/bytes.h"
#include "base/result.h"
#include "hv/cpu/cpu.h"
#include "hv/cpu/state.h"

namespace us::hv {

void put_state(const CpuState& state, ByteWriter& out);
// SNAP-010: it ends early, or holds values no processor has.
Status get_state(CpuState& state, ByteReader& in);

// What the translation caches hold; nothing, where they are empty or another backend wrote it.
// get_translations: SNAP-010 for what no cache can hold. The caches are empty before.
void put_translations(const Cpu& c, ByteWriter& out);
Status get_translations(Cpu& c, ByteReader& in);

}  // namespace us::hv
