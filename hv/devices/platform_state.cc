// Saving, loading and showing the platform's state.
#include <fmt/format.h>

#include "base/digest.h"
#include "hv/devices/platform_parts.h"

namespace us::hv {

namespace {

constexpr uint32_t kStateVersion = 1;

// What must agree between the platform that saved and the one that loads.
Digest config_digest(const PlatformConfig& config) {
  ByteWriter out;
  encode(config, out);
  return digest_of(out.bytes());
}

UserError damaged(std::string_view part) {
  return {.id = "DEV-002",
          .exit_code = ExitCode::kLogUnreadable,
          .what = fmt::format("cannot load the device state of {}", part),
          .seen = "values that no device could have saved, or too few bytes",
          .needed = "a complete state written by the same version",
          .mend = "take the snapshot again"};
}

UserError foreign(const std::string& seen, const std::string& needed) {
  return {.id = "DEV-001",
          .exit_code = ExitCode::kIncompatible,
          .what = "cannot load the device state",
          .seen = seen,
          .needed = needed,
          .mend = "use the configuration and version that the state was saved with"};
}

}  // namespace

void encode(const PlatformConfig& p, ByteWriter& out) {
  out.put(static_cast<uint8_t>(p.disks.size()));
  for (const DiskConfig& disk : p.disks) {
    out.put(disk.size_bytes);
    out.put(static_cast<uint8_t>(disk.read_only));
    out.put_string(disk.serial);
  }
  out.put(static_cast<uint8_t>(p.nets.size()));
  for (const NetConfig& net : p.nets) out.put_bytes(net.mac);
  out.put_bytes(p.rng_seed);
  out.put(static_cast<uint8_t>(p.virtio_rng));
  out.put(static_cast<uint8_t>(p.virtio_console));
  out.put(static_cast<uint8_t>(p.debug_exit));
  out.put(p.wall_clock_start);
  out.put(p.apic_hz);
}

void Platform::save(ByteWriter& out) const {
  out.put(kStateVersion);
  const Digest digest = config_digest(parts_->config);
  out.put(digest.low);
  out.put(digest.high);
  digest_state(out);
}

// A section a device: name and blob.
void Platform::digest_state(ByteWriter& out) const {
  out.put(parts_->pci_lines);
  for (const Parts::Named& named : parts_->named_devices()) {
    ByteWriter section;
    named.device->save(section);
    out.put_string(named.name);
    out.put_blob(section.bytes());
  }
}

Status Platform::load(ByteReader& in) {
  const auto version = in.get<uint32_t>();
  if (version != kStateVersion)
    return foreign(fmt::format("state version {}", version),
                   fmt::format("version {}", kStateVersion));
  Digest digest;
  digest.low = in.get<uint64_t>();
  digest.high = in.get<uint64_t>();
  const Digest mine = config_digest(parts_->config);
  if (digest != mine)
    return foreign("configuration " + digest.hex(), "configuration " + mine.hex());
  parts_->pci_lines = in.get<uint8_t>() & 0xf;
  for (const Parts::Named& named : parts_->named_devices()) {
    const std::string name = in.get_string();
    const Bytes section = in.get_blob();
    ByteReader reader(section);
    if (!in.failed() && name == named.name) named.device->load(reader);
    if (in.failed() || name != named.name || reader.failed() || !reader.at_end())
      return damaged(named.name);
  }
  parts_->map_memory();
  // The machine asks anew about everything.
  parts_->attention = true;
  parts_->was_pending = parts_->was_nmi = false;
  parts_->was_running = true;
  parts_->reported_deadline = Parts::kNever;
  parts_->settle();
  return Done{};
}

}  // namespace us::hv
