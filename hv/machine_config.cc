#include "hv/machine_config.h"

namespace us::hv {
namespace {

constexpr uint64_t kMemoryBytesMax = uint64_t{1} << 40;

}  // namespace

void encode(const MachineConfig& config, ByteWriter& out) {
  out.put(kMachineConfigVersion);
  out.put(config.memory_bytes);
  encode(config.platform, out);
}

MachineConfig decode_machine_config(ByteReader& in) {
  MachineConfig config;
  PlatformConfig& p = config.platform;
  if (in.get<uint16_t>() != kMachineConfigVersion) in.fail();
  config.memory_bytes = in.get<uint64_t>();
  if (config.memory_bytes > kMemoryBytesMax || config.memory_bytes % kPageSize != 0) in.fail();
  const unsigned disks = in.get<uint8_t>();
  for (unsigned i = 0; i < disks && !in.failed(); ++i) {
    DiskConfig disk;
    disk.size_bytes = in.get<uint64_t>();
    disk.read_only = in.get<uint8_t>() != 0;
    disk.serial = in.get_string();
    p.disks.push_back(std::move(disk));
  }
  const unsigned nets = in.get<uint8_t>();
  for (unsigned i = 0; i < nets && !in.failed(); ++i) {
    NetConfig net;
    in.get_into(net.mac);
    p.nets.push_back(net);
  }
  in.get_into(p.rng_seed);
  p.virtio_rng = in.get<uint8_t>() != 0;
  p.virtio_console = in.get<uint8_t>() != 0;
  p.debug_exit = in.get<uint8_t>() != 0;
  p.wall_clock_start = in.get<int64_t>();
  p.apic_hz = in.get<uint64_t>();
  if (p.disks.size() > PlatformConfig::kDevicesMax || p.nets.size() > PlatformConfig::kDevicesMax ||
      p.apic_hz == 0)
    in.fail();
  return config;
}

}  // namespace us::hv
