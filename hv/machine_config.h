// A machine's configuration as bytes: in snapshots, recordings and the handshake of a protected
// pair. Equal bytes mean equal machines.
#pragma once

#include "base/bytes.h"
#include "hv/machine.h"

namespace us::hv {

// Version of these bytes; another one is refused.
constexpr uint16_t kMachineConfigVersion = 1;

void encode(const MachineConfig& config, ByteWriter& out);
// Fails the reader on anything encode() does not write.
MachineConfig decode_machine_config(ByteReader& in);

}  // namespace us::hv
