#include "hv/devices/local_apic.h"

#include <bit>

#include "hv/devices/layout.h"

namespace us::hv {

namespace {

// Register numbers: MMIO offset / 16, MSR index - 0x800. SDM 3A table 11-1 and 11-6.
enum Register : unsigned {
  kRegId = 0x02,
  kRegVersion = 0x03,
  kRegTpr = 0x08,
  kRegApr = 0x09,
  kRegPpr = 0x0a,
  kRegEoi = 0x0b,
  kRegRrd = 0x0c,
  kRegLdr = 0x0d,
  kRegDfr = 0x0e,
  kRegSvr = 0x0f,
  kRegIsr = 0x10,
  kRegTmr = 0x18,
  kRegIrr = 0x20,
  kRegEsr = 0x28,
  kRegIcrLow = 0x30,
  kRegIcrHigh = 0x31,
  kRegLvtTimer = 0x32,
  kRegLvtError = 0x37,
  kRegInitialCount = 0x38,
  kRegCurrentCount = 0x39,
  kRegDivide = 0x3e,
  kRegSelfIpi = 0x3f,
};

constexpr uint32_t kVersion = 0x14 | (5u << 16);  // integrated APIC, six LVT entries

constexpr uint32_t kMsrApicBase = 0x1b;
constexpr uint32_t kMsrX2First = 0x800;
constexpr uint32_t kMsrX2Last = 0x8ff;
constexpr uint32_t kMsrTscDeadline = 0x6e0;

// Error status bits. SDM 3A figure 11-9.
constexpr uint32_t kErrorSendVector = 1u << 5;
constexpr uint32_t kErrorReceiveVector = 1u << 6;
constexpr uint32_t kErrorRegister = 1u << 7;

constexpr uint32_t kSvrWritable = 0x1ff;
constexpr uint32_t kIcrWritable = 0xccfff;  // without delivery status, bit 12

}  // namespace

LocalApic::LocalApic(TimeSource& time, uint64_t timer_hz) : time_(time), timer_hz_(timer_hz) {
  apic_base_ = kLocalApicBase | kBaseBsp | kBaseEnable;
  reset_registers();
  // What firmware leaves behind: virtual wire mode through LINT0 (MP specification 1.4 3.6.2.2).
  svr_ = kSvrEnable | 0xff;
  lvt_[kLvtLint0] = static_cast<uint32_t>(DeliveryMode::kExtInt) << 8;
  lvt_[kLvtLint1] = static_cast<uint32_t>(DeliveryMode::kNmi) << 8;
}

// SDM 3A 11.4.7.1.
void LocalApic::reset_registers() {
  id_ = 0;
  tpr_ = 0;
  ldr_ = 0;
  dfr_ = ~0u;
  svr_ = 0xff;
  esr_ = esr_pending_ = 0;
  icr_ = 0;
  lvt_.fill(kLvtMasked);
  irr_ = isr_ = tmr_ = {};
  irr_highest_ = isr_highest_ = -1;
  initial_count_ = divide_config_ = 0;
  timer_running_ = false;
  tsc_deadline_ = 0;
  deadline_.reset();
}

int LocalApic::highest(const Bitmap& map) {
  for (int word = 7; word >= 0; --word) {
    const uint32_t bits = map[static_cast<size_t>(word)];
    if (bits != 0) return word * 32 + 31 - std::countl_zero(bits);
  }
  return -1;
}

std::optional<uint64_t> LocalApic::mmio_base() const {
  if (!hardware_enabled() || x2apic()) return std::nullopt;
  return apic_base_ & ~kPageMask;
}

// SDM 3A 11.8.3.1.
uint8_t LocalApic::priority() const {
  const int in_service = isr_highest_ < 0 ? 0 : isr_highest_ & 0xf0;
  return (tpr_ & 0xf0) >= in_service ? tpr_ : static_cast<uint8_t>(in_service);
}

// --- Access paths

uint64_t LocalApic::mmio_read(uint64_t offset, unsigned size) {
  const unsigned skip = offset & 15;
  if (skip + size > 4) return 0;  // SDM 3A 11.4.1: undefined
  uint32_t value = 0;
  if (!read_register(static_cast<unsigned>(offset >> 4), value)) raise_error(kErrorRegister);
  return (value >> (8 * skip)) & all_ones(size);
}

void LocalApic::mmio_write(uint64_t offset, unsigned size, uint64_t value) {
  if ((offset & 15) != 0 || size != 4) return;  // SDM 3A 11.4.1: undefined
  const auto number = static_cast<unsigned>(offset >> 4);
  const auto word = static_cast<uint32_t>(value);
  switch (number) {
    case kRegId: id_ = word >> 24; return;
    case kRegLdr: ldr_ = word & 0xff00'0000; return;
    case kRegDfr: dfr_ = word | 0x0fff'ffff; return;
    case kRegIcrHigh:
      icr_ = (icr_ & 0xffff'ffff) | (static_cast<uint64_t>(word & 0xff00'0000) << 32);
      return;
    case kRegIcrLow:
      icr_ = (icr_ & ~0xffff'ffffull) | (word & kIcrWritable);
      send_ipi();
      return;
    case kRegEoi: end_of_interrupt(); return;
    default:
      if (!write_register(number, word)) raise_error(kErrorRegister);
  }
}

bool LocalApic::read_register(unsigned number, uint32_t& value) {
  if (number >= kRegIsr && number < kRegIsr + 8) return value = isr_[number - kRegIsr], true;
  if (number >= kRegTmr && number < kRegTmr + 8) return value = tmr_[number - kRegTmr], true;
  if (number >= kRegIrr && number < kRegIrr + 8) return value = irr_[number - kRegIrr], true;
  if (number >= kRegLvtTimer && number <= kRegLvtError)
    return value = lvt_[number - kRegLvtTimer], true;
  switch (number) {
    case kRegId: return value = x2apic() ? 0 : id_ << 24, true;
    case kRegVersion: return value = kVersion, true;
    case kRegTpr: return value = tpr_, true;
    case kRegPpr: return value = priority(), true;
    case kRegApr:
    case kRegRrd:
    case kRegEoi: return value = 0, !x2apic();
    case kRegLdr: return value = x2apic() ? 1 : ldr_, true;  // SDM 3A 11.12.10.2: ID 0
    case kRegDfr: return value = dfr_, !x2apic();
    case kRegSvr: return value = svr_, true;
    case kRegEsr: return value = esr_, true;
    case kRegIcrLow: return value = static_cast<uint32_t>(icr_), true;
    case kRegIcrHigh: return value = static_cast<uint32_t>(icr_ >> 32), !x2apic();
    case kRegInitialCount: return value = initial_count_, true;
    case kRegCurrentCount: {
      const GuestTsc now = time_.now();
      advance(now);
      return value = current_count(now), true;
    }
    case kRegDivide: return value = divide_config_, true;
    default: return false;
  }
}

// The writes that both paths do alike.
bool LocalApic::write_register(unsigned number, uint32_t value) {
  if (number >= kRegLvtTimer && number <= kRegLvtError)
    return write_lvt(number - kRegLvtTimer, value), true;
  switch (number) {
    case kRegTpr: tpr_ = static_cast<uint8_t>(value); return true;
    case kRegSvr: write_svr(value); return true;
    case kRegEsr:
      esr_ = esr_pending_;  // SDM 3A 11.5.3: a write latches what was gathered
      esr_pending_ = 0;
      return true;
    case kRegInitialCount:
      advance(time_.now());
      if (timer_mode() == TimerMode::kTscDeadline) return true;  // SDM 3A 11.5.4.1: ignored
      initial_count_ = value;
      start_timer(value);
      return true;
    case kRegDivide: {
      const GuestTsc now = time_.now();
      advance(now);
      const uint32_t left = current_count(now);
      divide_config_ = value & 0xb;
      if (timer_running_) start_timer(left);
      return true;
    }
    default: return false;
  }
}

bool LocalApic::msr_read(uint32_t index, uint64_t& value) {
  if (index == kMsrApicBase) return value = apic_base_, true;
  if (index == kMsrTscDeadline) {
    advance(time_.now());
    value = timer_mode() == TimerMode::kTscDeadline ? tsc_deadline_ : 0;
    return true;
  }
  if (index < kMsrX2First || index > kMsrX2Last || !x2apic()) return false;
  return x2_read(index - kMsrX2First, value);
}

bool LocalApic::msr_write(uint32_t index, uint64_t value) {
  if (index == kMsrApicBase) return write_apic_base(value);
  if (index == kMsrTscDeadline) {
    if (timer_mode() == TimerMode::kTscDeadline && hardware_enabled()) {
      tsc_deadline_ = value;
      rearm();
      if (deadline_) advance(time_.now());  // in the past: at once
    }
    return true;
  }
  if (index < kMsrX2First || index > kMsrX2Last || !x2apic()) return false;
  return x2_write(index - kMsrX2First, value);
}

bool LocalApic::x2_read(unsigned number, uint64_t& value) {
  if (number == kRegIcrLow) return value = icr_, true;
  uint32_t word = 0;
  if (!read_register(number, word)) return false;
  value = word;
  return true;
}

// Reserved bits and read-only registers raise #GP. SDM 3A 11.12.1.
bool LocalApic::x2_write(unsigned number, uint64_t value) {
  if (number == kRegIcrLow) {
    if ((value & 0xffff'ffff & ~static_cast<uint64_t>(kIcrWritable)) != 0) return false;
    icr_ = value;
    send_ipi();
    return true;
  }
  if ((value >> 32) != 0) return false;
  const auto word = static_cast<uint32_t>(value);
  if (number >= kRegLvtTimer && number <= kRegLvtError) {
    const uint32_t read_only = 0x1000 | 0x4000;  // delivery status and remote IRR are ignored
    if ((word & ~(lvt_writable(number - kRegLvtTimer) | read_only)) != 0) return false;
    return write_register(number, word);
  }
  switch (number) {
    case kRegTpr: return word <= 0xff && write_register(number, word);
    case kRegSvr: return (word & ~kSvrWritable) == 0 && write_register(number, word);
    case kRegEsr: return word == 0 && write_register(number, word);
    case kRegInitialCount: return write_register(number, word);
    case kRegDivide: return (word & ~0xbu) == 0 && write_register(number, word);
    case kRegEoi:
      if (word != 0) return false;
      end_of_interrupt();
      return true;
    case kRegSelfIpi:
      if (word > 0xff) return false;
      if (word < 16) return raise_error(kErrorSendVector), true;
      accept_fixed(static_cast<uint8_t>(word), false);
      return true;
    default: return false;
  }
}

// Allowed changes of mode: SDM 3A figure 11-27.
bool LocalApic::write_apic_base(uint64_t value) {
  const uint64_t reserved = 0x2ff | ~((1ull << kPhysicalBits) - 1);
  if ((value & reserved) != 0) return false;
  const bool enable = (value & kBaseEnable) != 0;
  const bool x2 = (value & kBaseX2) != 0;
  if (x2 && !enable) return false;
  if (x2 && !hardware_enabled()) return false;
  if (enable && !x2 && x2apic()) return false;
  const bool was_enabled = hardware_enabled();
  apic_base_ = value;
  if (was_enabled && !enable) reset_registers();
  return true;
}

void LocalApic::write_svr(uint32_t value) {
  svr_ = value & kSvrWritable;
  if ((svr_ & kSvrEnable) == 0) {  // SDM 3A 11.4.7.2: all LVT entries become masked
    for (uint32_t& entry : lvt_) entry |= kLvtMasked;
  }
}

void LocalApic::write_lvt(unsigned index, uint32_t value) {
  value &= lvt_writable(index);
  if (!software_enabled()) value |= kLvtMasked;
  if (index == kLvtTimer) return write_timer_lvt(value);
  lvt_[index] = value;
}

// --- Interrupts

bool LocalApic::matches(const ApicMessage& message) const {
  const uint32_t to = message.destination;
  if (x2apic()) {
    if (to == ~0u || to == 0xff) return true;
    if (!message.logical) return to == 0;
    return (to >> 16) == 0 && (to & 1) != 0;  // cluster 0, member 0: SDM 3A 11.12.10.1
  }
  const uint32_t to8 = to & 0xff;
  if (!message.logical) return to8 == 0xff || to8 == id_;
  const uint32_t mine = ldr_ >> 24;
  if ((dfr_ >> 28) == 0xf) return (mine & to8) != 0;  // flat model, SDM 3A 11.6.2.2
  return ((to8 >> 4) == (mine >> 4) || (to8 >> 4) == 0xf) && (mine & to8 & 0xf) != 0;
}

bool LocalApic::deliver(const ApicMessage& message) {
  if (!hardware_enabled() || !matches(message)) return false;
  switch (message.mode) {
    case DeliveryMode::kFixed:
    case DeliveryMode::kLowestPriority:
      if (!software_enabled()) return false;
      accept_fixed(message.vector, message.level);
      return true;
    case DeliveryMode::kNmi: nmi_pending_ = true; return true;
    case DeliveryMode::kSmi:      // no SMM: swallowed
    case DeliveryMode::kInit:     // the one processor does not reset itself
    case DeliveryMode::kStartup:  // nor waits for a start-up
    case DeliveryMode::kExtInt: return true;
  }
  return false;
}

void LocalApic::accept_fixed(uint8_t vector, bool level) {
  if (vector < 16) return raise_error(kErrorReceiveVector);  // SDM 3A 11.5.2
  set_bit(irr_, vector);
  if (level) {
    set_bit(tmr_, vector);
  } else {
    clear_bit(tmr_, vector);
  }
  if (vector > irr_highest_) irr_highest_ = vector;
}

std::optional<uint8_t> LocalApic::acknowledge() {
  if (!has_pending()) return std::nullopt;
  const auto vector = static_cast<uint8_t>(irr_highest_);
  clear_bit(irr_, vector);
  set_bit(isr_, vector);
  irr_highest_ = highest(irr_);
  isr_highest_ = vector;  // it was above PPR, so above everything in service
  return vector;
}

void LocalApic::end_of_interrupt() {
  if (isr_highest_ < 0) return;
  const auto vector = static_cast<uint8_t>(isr_highest_);
  clear_bit(isr_, vector);
  isr_highest_ = highest(isr_);
  if (test_bit(tmr_, vector) && eoi_listener_ != nullptr) eoi_listener_->end_of_interrupt(vector);
}

void LocalApic::raise_error(uint32_t bits) {
  const bool fresh = (esr_pending_ & bits) != bits;
  esr_pending_ |= bits;
  if (fresh) fire_lvt(kLvtError);
}

// Delivers what a local vector table entry says, unless it is masked.
void LocalApic::fire_lvt(unsigned index) {
  const uint32_t entry = lvt_[index];
  if ((entry & kLvtMasked) != 0 || !hardware_enabled()) return;
  // Timer and error entries have no mode field: their bits 10:8 read zero, fixed.
  const auto mode = static_cast<DeliveryMode>((entry >> 8) & 7);
  const auto vector = static_cast<uint8_t>(entry);
  if (mode == DeliveryMode::kNmi) {
    nmi_pending_ = true;
  } else if (mode == DeliveryMode::kFixed) {
    if (vector < 16 && index == kLvtError) {  // would raise an error from within an error
      esr_pending_ |= kErrorReceiveVector;
      return;
    }
    accept_fixed(vector, false);
  }
}

void LocalApic::send_ipi() {
  ApicMessage message;
  message.mode = static_cast<DeliveryMode>((icr_ >> 8) & 7);
  message.vector = static_cast<uint8_t>(icr_);
  message.logical = (icr_ & 0x800) != 0;
  message.destination = static_cast<uint32_t>(x2apic() ? icr_ >> 32 : icr_ >> 56);
  const bool fixed =
      message.mode == DeliveryMode::kFixed || message.mode == DeliveryMode::kLowestPriority;
  if (fixed && message.vector < 16) return raise_error(kErrorSendVector);
  const unsigned shorthand = (icr_ >> 18) & 3;  // SDM 3A 11.6.1: none, self, all, all but self
  if (shorthand == 3) return;
  if (shorthand != 0) {
    message.destination = x2apic() ? ~0u : 0xff;
    message.logical = false;
  }
  deliver(message);
}

bool LocalApic::accepts_extint() const {
  if (!hardware_enabled()) return true;
  const uint32_t entry = lvt_[kLvtLint0];
  return (entry & kLvtMasked) == 0 &&
         static_cast<DeliveryMode>((entry >> 8) & 7) == DeliveryMode::kExtInt;
}

void LocalApic::set_lint0(bool level) {
  const bool rises = level && !lint0_level_;
  lint0_level_ = level;
  if (rises && !accepts_extint()) fire_lvt(kLvtLint0);
}

void LocalApic::pulse_lint1() {
  if (!hardware_enabled()) {
    nmi_pending_ = true;
  } else {
    fire_lvt(kLvtLint1);
  }
}

bool LocalApic::take_nmi() {
  const bool pending = nmi_pending_;
  nmi_pending_ = false;
  return pending;
}

}  // namespace us::hv
