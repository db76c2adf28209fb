// The local APIC of the one processor: xAPIC registers at APIC_BASE, x2APIC registers as MSRs, the
// timer in its three modes. SDM 3A chapter 11 (numbering of the 2023 edition).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "hv/devices/device.h"

namespace us::hv {

// Told when a level-triggered interrupt was handled (SDM 3A 11.8.5).
class EoiListener {
 public:
  virtual ~EoiListener() = default;
  virtual void end_of_interrupt(uint8_t vector) = 0;
};

// Delivery modes of ICR, LVT and redirection entries (SDM 3A 11.5.1).
enum class DeliveryMode : uint8_t {
  kFixed = 0,
  kLowestPriority = 1,
  kSmi = 2,
  kNmi = 4,
  kInit = 5,
  kStartup = 6,
  kExtInt = 7,
};

// An interrupt message on its way to local APICs.
struct ApicMessage {
  uint32_t destination = 0;
  bool logical = false;
  DeliveryMode mode = DeliveryMode::kFixed;
  bool level = false;  // trigger mode
  uint8_t vector = 0;
};

class LocalApic final : public Device, public MmioDevice, public TimerDevice {
 public:
  // Physical address bits APIC_BASE may use.
  static constexpr unsigned kPhysicalBits = 40;

  LocalApic(TimeSource& time, uint64_t timer_hz);
  void set_eoi_listener(EoiListener* listener) { eoi_listener_ = listener; }

  // Where the xAPIC page answers, or nothing (disabled, or in x2APIC mode).
  std::optional<uint64_t> mmio_base() const;

  uint64_t mmio_read(uint64_t offset, unsigned size) override;
  void mmio_write(uint64_t offset, unsigned size, uint64_t value) override;
  // IA32_APIC_BASE, the x2APIC range and IA32_TSC_DEADLINE; false means #GP.
  bool msr_read(uint32_t index, uint64_t& value);
  bool msr_write(uint32_t index, uint64_t value);
  uint8_t task_priority() const { return static_cast<uint8_t>(tpr_ >> 4); }
  void set_task_priority(uint8_t priority) { tpr_ = static_cast<uint8_t>(priority << 4); }

  // A message from the I/O APIC, an MSI or an IPI; false when no local APIC took it.
  bool deliver(const ApicMessage& message);
  // Local interrupt pins. LINT0 carries the 8259's output, LINT1 the board's NMI.
  void set_lint0(bool level);
  void pulse_lint1();

  // A fixed interrupt above the processor's priority waits.
  bool has_pending() const {
    return hardware_enabled() && irr_highest_ >= 0 && (irr_highest_ >> 4) > (priority() >> 4);
  }
  // Moves the highest pending interrupt into service.
  std::optional<uint8_t> acknowledge();
  // The 8259's output reaches the processor (virtual wire mode, or no APIC at all).
  bool accepts_extint() const;
  bool extint_pending() const { return lint0_level_ && accepts_extint(); }
  bool nmi_pending() const { return nmi_pending_; }
  bool take_nmi();

  std::optional<GuestTsc> next_deadline() const override { return deadline_; }
  void advance(GuestTsc now) override;
  // The guest's TSC moved against the device clock.
  void guest_offset_changed() { rearm(); }

  void save(ByteWriter& out) const override;
  void load(ByteReader& in) override;
  std::string dump() const;

 private:
  using Bitmap = std::array<uint32_t, 8>;
  enum LvtIndex { kLvtTimer, kLvtThermal, kLvtPerf, kLvtLint0, kLvtLint1, kLvtError, kLvtCount };
  enum class TimerMode : uint8_t { kOneShot = 0, kPeriodic = 1, kTscDeadline = 2 };

  bool hardware_enabled() const { return (apic_base_ & kBaseEnable) != 0; }
  bool x2apic() const { return (apic_base_ & kBaseX2) != 0; }
  bool software_enabled() const { return hardware_enabled() && (svr_ & kSvrEnable) != 0; }
  uint8_t priority() const;  // PPR
  void reset_registers();

  // Registers by their number (offset / 16), as both access paths see them.
  bool read_register(unsigned number, uint32_t& value);
  bool write_register(unsigned number, uint32_t value);
  bool x2_read(unsigned number, uint64_t& value);
  bool x2_write(unsigned number, uint64_t value);
  void write_lvt(unsigned index, uint32_t value);
  void write_svr(uint32_t value);
  bool write_apic_base(uint64_t value);
  void send_ipi();
  void end_of_interrupt();
  bool matches(const ApicMessage& message) const;
  void accept_fixed(uint8_t vector, bool level);
  void fire_lvt(unsigned index);
  void raise_error(uint32_t bits);

  TimerMode timer_mode() const { return static_cast<TimerMode>((lvt_[kLvtTimer] >> 17) & 3); }
  uint64_t divider() const;
  uint32_t current_count(GuestTsc now) const;
  void start_timer(uint32_t count);  // counts down from here, now
  void write_timer_lvt(uint32_t value);
  void rearm();  // recomputes deadline_

  static void set_bit(Bitmap& map, uint8_t vector) { map[vector >> 5] |= 1u << (vector & 31); }
  static void clear_bit(Bitmap& map, uint8_t vector) { map[vector >> 5] &= ~(1u << (vector & 31)); }
  static bool test_bit(const Bitmap& map, uint8_t vector) {
    return (map[vector >> 5] >> (vector & 31)) & 1;
  }
  // Writable bits of timer, thermal, performance, LINT0, LINT1 and error entries (delivery status
  // and remote IRR are read-only). SDM 3A figure 11-8.
  static constexpr uint32_t lvt_writable(unsigned index) {
    constexpr uint32_t kBits[kLvtCount] = {0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff};
    return kBits[index];
  }
  static int highest(const Bitmap& map);

  static constexpr uint64_t kBaseBsp = 1u << 8;
  static constexpr uint64_t kBaseX2 = 1u << 10;
  static constexpr uint64_t kBaseEnable = 1u << 11;
  static constexpr uint32_t kSvrEnable = 1u << 8;
  static constexpr uint32_t kLvtMasked = 1u << 16;

  TimeSource& time_;
  const uint64_t timer_hz_;
  EoiListener* eoi_listener_ = nullptr;

  uint64_t apic_base_ = 0;
  uint32_t id_ = 0;  // xAPIC ID, writable by the guest
  uint8_t tpr_ = 0;
  uint32_t ldr_ = 0;
  uint32_t dfr_ = ~0u;
  uint32_t svr_ = 0xff;
  uint32_t esr_ = 0;
  uint32_t esr_pending_ = 0;
  uint64_t icr_ = 0;
  std::array<uint32_t, kLvtCount> lvt_ = {};
  Bitmap irr_ = {};
  Bitmap isr_ = {};
  Bitmap tmr_ = {};
  int irr_highest_ = -1;  // derived
  int isr_highest_ = -1;  // derived
  bool lint0_level_ = false;
  bool nmi_pending_ = false;

  // The timer counts count_at_base_ steps of `divider()` bus ticks from timer_base_ on; in periodic
  // mode initial_count_ more for each of the periods_ that already fired.
  uint32_t initial_count_ = 0;
  uint32_t divide_config_ = 0;
  bool timer_running_ = false;
  GuestTsc timer_base_;
  uint64_t count_at_base_ = 0;
  uint64_t periods_ = 0;
  uint64_t tsc_deadline_ = 0;         // guest TSC; 0: disarmed
  std::optional<GuestTsc> deadline_;  // derived
};

}  // namespace us::hv
