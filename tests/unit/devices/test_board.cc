#include <doctest/doctest.h>
#include <numeric>

#include "hv/devices/acpi_tables.h"
#include "tests/unit/devices/rig.h"

using namespace us;
using namespace us::hv;
using us::hv::test::Rig;

namespace {

ByteSpan text(std::string_view s) { return {reinterpret_cast<const uint8_t*>(s.data()), s.size()}; }

uint8_t sum(ByteSpan bytes) {
  return static_cast<uint8_t>(std::accumulate(bytes.begin(), bytes.end(), 0));
}

}  // namespace

TEST_CASE("serial: what a driver probes for a 16550A is found, and written bytes leave") {
  Rig rig;
  rig.out8(0x3fb, 0x80);
  rig.out8(0x3f8, 1);
  rig.out8(0x3f9, 0);
  CHECK(rig.in8(0x3f8) == 1);
  rig.out8(0x3fb, 3);
  rig.out8(0x3ff, 0xa5);
  CHECK(rig.in8(0x3ff) == 0xa5);
  rig.out8(0x3fa, 1);
  CHECK((rig.in8(0x3fa) & 0xc0) == 0xc0);
  CHECK((rig.in8(0x3fd) & 0x60) == 0x60);
  for (char c : std::string("hello")) rig.out8(0x3f8, static_cast<uint8_t>(c));
  CHECK(rig.sink.serial_text == "hello");
}

TEST_CASE("serial: loopback returns bytes and wires modem outputs to inputs, nothing leaves") {
  Rig rig;
  rig.out8(0x3fc, 0x1a);
  CHECK((rig.in8(0x3fe) & 0xf0) == 0x90);
  rig.out8(0x3f8, 0x42);
  CHECK((rig.in8(0x3fd) & 1) == 1);
  CHECK(rig.in8(0x3f8) == 0x42);
  CHECK(rig.sink.serial_text.empty());
}

TEST_CASE("serial: received bytes interrupt until read, the queue is bounded, drops are counted") {
  Rig rig;
  rig.set_redirection(4, 0x34);
  rig.out8(0x3fa, 0xc1);  // FIFO, trigger at 14
  rig.out8(0x3f9, 1);
  rig.platform.console_input(0, text("ab"));
  CHECK(rig.platform.acknowledge_interrupt() == 0x34);
  CHECK((rig.in8(0x3fa) & 0xf) == 0xc);  // below the trigger: timeout
  CHECK(rig.in8(0x3f8) == 'a');
  CHECK(rig.in8(0x3f8) == 'b');
  CHECK((rig.in8(0x3fa) & 0xf) == 1);
  rig.platform.console_input(0, Bytes(100'000, 'z'));
  CHECK(rig.platform.counters().console_bytes_dropped == 100'000 - 65'536);
  CHECK((rig.in8(0x3fa) & 0xf) == 4);
}

TEST_CASE("absent ports and addresses read all ones and are counted") {
  Rig rig;
  CHECK(rig.platform.pio_read(0x1234, 4) == 0xffffffff);
  CHECK(rig.platform.pio_read(0x3f7, 1) == 0xff);
  CHECK(rig.platform.mmio_read(GuestPhys(0xfed00000), 8) == ~0ull);
  CHECK(rig.platform.counters().absent_pio == 5);
  CHECK(rig.platform.counters().absent_mmio == 1);
}

TEST_CASE("a two-byte write to 0x70 sets the RTC's index and its register") {
  Rig rig;
  rig.platform.pio_write(0x70, 2, 0x5a40);
  rig.out8(0x70, 0x40);
  CHECK(rig.in8(0x71) == 0x5a);
}

TEST_CASE("S5 powers off, other sleep types do not") {
  Rig rig;
  rig.platform.pio_write(kPortPm1Control, 2, 0x2000 | 3 << 10);
  CHECK(rig.platform.power().state == PowerState::kRunning);
  (void)rig.platform.take_attention();
  rig.platform.pio_write(kPortPm1Control, 2, 0x2000 | 5 << 10);
  CHECK(rig.platform.power().state == PowerState::kPoweredOff);
  CHECK(rig.platform.take_attention());
}

TEST_CASE("each way to reset asks for a reset") {
  for (const auto& [port, value] :
       {std::pair<uint16_t, uint8_t>{0xcf9, 6}, {0x64, 0xfe}, {0x92, 3}}) {
    CAPTURE(port);
    Rig rig;
    rig.out8(port, value);
    CHECK(rig.platform.power().state == PowerState::kResetRequested);
  }
}

TEST_CASE("debug exit gives QEMU's code when asked for and is absent otherwise") {
  Rig rig;
  rig.platform.pio_write(kPortDebugExit, 4, 0x10);
  CHECK(rig.platform.power().state == PowerState::kDebugExit);
  CHECK(rig.platform.power().debug_code == 0x21);
  Rig plain{PlatformConfig{}};
  plain.platform.pio_write(kPortDebugExit, 4, 0x10);
  CHECK(plain.platform.power().state == PowerState::kRunning);
}

TEST_CASE("ACPI tables: every checksum is right and the root pointer leads to all of them") {
  Rig rig;
  const GuestPhys rsdp = rig.platform.install_acpi_tables();
  CHECK(rsdp.value % 16 == 0);
  Bytes root(36);
  REQUIRE(rig.memory->read(rsdp, root));
  CHECK(std::string(root.begin(), root.begin() + 8) == "RSD PTR ");
  CHECK(sum(ByteSpan(root).first(20)) == 0);
  CHECK(sum(root) == 0);
  const AcpiTables tables = build_acpi_tables(GuestPhys(kAcpiTablesBase));
  const auto table_at = [&](uint64_t address) {
    ByteReader length(ByteSpan(tables.bytes).subspan(address - kAcpiTablesBase + 4, 4));
    return ByteSpan(tables.bytes).subspan(address - kAcpiTablesBase, length.get<uint32_t>());
  };
  ByteReader fields{ByteSpan(root).subspan(16)};
  (void)fields.get<uint64_t>();
  const ByteSpan xsdt = table_at(fields.get<uint64_t>());
  CHECK(sum(xsdt) == 0);
  std::string names;
  ByteReader entries(xsdt.subspan(36));
  while (!entries.at_end()) {
    const ByteSpan table = table_at(entries.get<uint64_t>());
    CHECK(sum(table) == 0);
    names += std::string(table.begin(), table.begin() + 4) + " ";
  }
  CHECK(names == "FACP APIC ");
}

TEST_CASE("the test device moves interrupt lines, keeps data, and is absent without debug exit") {
  Rig rig;
  rig.set_redirection(14, 0x3e);
  rig.out8(0x200e, 1);
  CHECK(rig.platform.acknowledge_interrupt() == 0x3e);
  rig.platform.pio_write(0xe0, 4, 0x12345678);
  CHECK(rig.platform.pio_read(0xe1, 2) == 0x3456);
  rig.platform.mmio_write(GuestPhys(0xff00fff8), 8, 0x1122334455667788);
  CHECK(rig.platform.mmio_read(GuestPhys(0xff00fffc), 4) == 0x11223344);
  Rig plain{PlatformConfig{}};
  CHECK(plain.platform.pio_read(0xe0, 1) == 0xff);
  CHECK(plain.platform.mmio_read(GuestPhys(0xff000000), 1) == 0xff);
}

TEST_CASE("a dump names pending vectors, pins in use and why a device failed") {
  Rig rig;
  rig.set_apic(0x300, 0x40055);
  rig.set_redirection(4, 0x34);
  const std::string dump = rig.platform.dump();
  CHECK(dump.find("irr 0x55") != std::string::npos);
  CHECK(dump.find("pin 4: 0x0000000000000034") != std::string::npos);
  CHECK(dump.find("power: running") != std::string::npos);
}
