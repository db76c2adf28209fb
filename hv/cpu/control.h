// Handlers that end blocks, as the decoder needs them.
#pragma once

#include <cstdint>

#include "hv/cpu/insn.h"
#include "hv/cpu/op.h"

namespace us::hv {

// Ends a block that was cut off without a jump: goes on at entry + op.imm.
Handler fall_through_handler(Mode mode);

// Where a direct jump, call or conditional jump leads, relative to the block's entry; for other
// instructions a value no page contains.
int64_t direct_target_offset(const Insn& in);

}  // namespace us::hv
