// The architectural state as bytes: the same for every backend, so that what one saved another can
// load, and states can be compared.
#pragma once

#include "base/bytes.h"
#include "base/result.h"
#include "hv/cpu/state.h"

namespace us::hv {

void put_state(const CpuState& state, ByteWriter& out);
// SNAP-010: it ends early, or holds values no processor has.
Status get_state(CpuState& state, ByteReader& in);

}  // namespace us::hv
