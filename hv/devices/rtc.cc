#include "hv/devices/rtc.h"

#include <algorithm>

namespace us::hv {

namespace {

enum Register : uint8_t {
  kSecond = 0,
  kSecondAlarm = 1,
  kMinute = 2,
  kMinuteAlarm = 3,
  kHour = 4,
  kHourAlarm = 5,
  kWeekday = 6,
  kDay = 7,
  kMonth = 8,
  kYear = 9,
  kA = 10,
  kB = 11,
  kC = 12,
  kD = 13,
};

constexpr uint8_t kAUpdateInProgress = 0x80;
constexpr uint8_t kBSet = 0x80;
constexpr uint8_t kBBinary = 0x04;
constexpr uint8_t kB24Hour = 0x02;
constexpr uint8_t kPeriodicBit = 0x40;  // enables in B, flags in C
constexpr uint8_t kAlarmBit = 0x20;
constexpr uint8_t kUpdateBit = 0x10;
constexpr uint8_t kCInterrupt = 0x80;

static_assert(kTscHz == 1'000'000'000);  // device time is in nanoseconds
constexpr uint64_t kUpdateNs = 244'000;  // UIP rises this long before the update (table 6)
constexpr uint64_t kChainHz = 32'768;

// Days since 1970-01-01 of a Gregorian date, and back; valid from year 0 on. The year is taken to
// start in March, so that the leap day is its last.
int64_t days_of(int64_t year, unsigned month, unsigned day) {
  if (month <= 2) --year;
  const int64_t era = year / 400;
  const int64_t year_of_era = year - era * 400;
  const int64_t shifted_month = static_cast<int64_t>(month) + (month > 2 ? -3 : 9);
  const int64_t day_of_year = (153 * shifted_month + 2) / 5 + static_cast<int64_t>(day) - 1;
  return era * 146'097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
         719'468;
}

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }

}  // namespace

Rtc::Rtc(TimeSource& time, IrqLine irq, int64_t start_seconds)
    : time_(time), irq_(irq), offset_s_(start_seconds) {
  cmos_[kA] = 0x26;  // 32768 Hz time base, 1024 Hz periodic rate
  cmos_[kB] = kB24Hour;
  cmos_[kD] = 0x80;  // battery good
}

Rtc::Fields Rtc::to_fields(int64_t seconds) {
  const int64_t days = floor_div(seconds, 86'400);
  const int64_t rest = seconds - days * 86'400;
  const int64_t shifted = days + 719'468;
  const int64_t era = floor_div(shifted, 146'097);
  const int64_t day_of_era = shifted - era * 146'097;
  const int64_t year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
  const int64_t day_of_year =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const int64_t month = (5 * day_of_year + 2) / 153;
  Fields f;
  f.second = static_cast<uint8_t>(rest % 60);
  f.minute = static_cast<uint8_t>(rest / 60 % 60);
  f.hour = static_cast<uint8_t>(rest / 3600);
  f.weekday = static_cast<uint8_t>(((days + 4) % 7 + 7) % 7 + 1);  // 1970-01-01 was a Thursday
  f.day = static_cast<uint8_t>(day_of_year - (153 * month + 2) / 5 + 1);
  f.month = static_cast<uint8_t>(month < 10 ? month + 3 : month - 9);
  f.year = static_cast<uint16_t>(year_of_era + era * 400 + (f.month <= 2 ? 1 : 0));
  return f;
}

int64_t Rtc::to_seconds(const Fields& f) {
  const unsigned month = std::clamp<unsigned>(f.month, 1, 12);
  return days_of(f.year, month, f.day) * 86'400 + f.hour * 3600 + f.minute * 60 + f.second;
}

bool Rtc::set_mode() const { return (cmos_[kB] & kBSet) != 0; }

uint8_t Rtc::encode(uint8_t value) const {
  if ((cmos_[kB] & kBBinary) != 0) return value;
  return static_cast<uint8_t>((value / 10) << 4 | value % 10);
}

uint8_t Rtc::decode(uint8_t value) const {
  if ((cmos_[kB] & kBBinary) != 0) return value;
  return static_cast<uint8_t>((value >> 4) * 10 + (value & 15));
}

// In 12-hour mode bit 7 says PM, and 12 stands for 0.
uint8_t Rtc::encode_hour(uint8_t hour) const {
  if ((cmos_[kB] & kB24Hour) != 0) return encode(hour);
  const auto twelve = static_cast<uint8_t>(hour % 12 == 0 ? 12 : hour % 12);
  return static_cast<uint8_t>(encode(twelve) | (hour >= 12 ? 0x80 : 0));
}

uint8_t Rtc::decode_hour(uint8_t value) const {
  if ((cmos_[kB] & kB24Hour) != 0) return decode(value);
  return static_cast<uint8_t>(decode(value & 0x7f) % 12 + ((value & 0x80) != 0 ? 12 : 0));
}

uint64_t Rtc::periodic_ticks() const {
  const unsigned rate = cmos_[kA] & 15;
  if (rate == 0) return 0;
  return 1ull << ((rate <= 2 ? rate + 7 : rate) - 1);  // table 5: 1 and 2 are as 8 and 9
}

// --- Access

uint32_t Rtc::pio_read(uint16_t port, unsigned) {
  if (port == 0x70) return 0xff;  // write-only
  const GuestTsc now = time_.now();
  advance(now);
  return read_register(now);
}

void Rtc::pio_write(uint16_t port, unsigned, uint32_t value) {
  const auto byte = static_cast<uint8_t>(value);
  if (port == 0x70) {
    index_ = byte & 0x7f;  // bit 7 masks NMIs in old chipsets; not modelled
    return;
  }
  const GuestTsc now = time_.now();
  advance(now);
  write_register(byte, now);
  rearm();
}

uint8_t Rtc::read_time(const Fields& f) const {
  switch (index_) {
    case kSecond: return encode(f.second);
    case kMinute: return encode(f.minute);
    case kHour: return encode_hour(f.hour);
    case kWeekday: return f.weekday;
    case kDay: return encode(f.day);
    case kMonth: return encode(f.month);
    case kYear: return encode(static_cast<uint8_t>(f.year % 100));
    default: return encode(static_cast<uint8_t>(f.year / 100));  // the century byte
  }
}

uint8_t Rtc::read_register(GuestTsc now) {
  switch (index_) {
    case kSecondAlarm:
    case kMinuteAlarm:
    case kHourAlarm: return cmos_[index_];
    case kA: {
      const bool updating = !set_mode() && into_second(now) >= kTscHz - kUpdateNs;
      return static_cast<uint8_t>(cmos_[kA] | (updating ? kAUpdateInProgress : 0));
    }
    case kC: {
      const uint8_t flags = cmos_[kC];
      cmos_[kC] = 0;  // reading clears them all
      update_irq();
      rearm();
      return flags;
    }
    default: break;
  }
  const bool time_register = index_ <= kYear || index_ == kCenturyIndex;
  if (!time_register) return cmos_[index_];
  return read_time(set_mode() ? frozen_ : to_fields(wall_second(now)));
}

void Rtc::write_time(Fields& f, uint8_t value) const {
  switch (index_) {
    case kSecond: f.second = decode(value); break;
    case kMinute: f.minute = decode(value); break;
    case kHour: f.hour = decode_hour(value); break;
    case kWeekday: f.weekday = value; break;
    case kDay: f.day = decode(value); break;
    case kMonth: f.month = decode(value); break;
    case kYear: f.year = static_cast<uint16_t>(f.year / 100 * 100 + decode(value)); break;
    default: f.year = static_cast<uint16_t>(decode(value) * 100 + f.year % 100); break;
  }
}

void Rtc::write_register(uint8_t value, GuestTsc now) {
  switch (index_) {
    case kA: cmos_[kA] = value & 0x7f; return;
    case kB: return write_b(value, now);
    case kC:
    case kD: return;  // read-only
    case kSecondAlarm:
    case kMinuteAlarm:
    case kHourAlarm: cmos_[index_] = value; return;
    default: break;
  }
  if (index_ > kYear && index_ != kCenturyIndex) {
    cmos_[index_] = value;
    return;
  }
  if (set_mode()) return write_time(frozen_, value);
  const int64_t seconds = wall_second(now);
  Fields fields = to_fields(seconds);
  write_time(fields, value);
  offset_s_ += to_seconds(fields) - seconds;
}

void Rtc::write_b(uint8_t value, GuestTsc now) {
  const bool was_set = set_mode();
  if (!was_set && (value & kBSet) != 0) frozen_ = to_fields(wall_second(now));
  cmos_[kB] = value;
  if (was_set && (value & kBSet) == 0) {  // the new second starts now
    const uint64_t rest = now.value % kTscHz;
    offset_ns_ = rest == 0 ? 0 : kTscHz - rest;
    offset_s_ = to_seconds(frozen_) - static_cast<int64_t>((now.value + offset_ns_) / kTscHz);
  }
  if ((value & kBSet) != 0) cmos_[kB] &= static_cast<uint8_t>(~kUpdateBit);  // SET clears UIE
  update_irq();
}

// --- Interrupts

// Alarm registers with both top bits set match anything. Skips whole hours and minutes that cannot
// match, so at most 24 + 60 + 60 steps and a day's wrap are taken.
int64_t Rtc::next_alarm(int64_t after) const {
  const auto any = [](uint8_t value) { return (value & 0xc0) == 0xc0; };
  const uint8_t s = cmos_[kSecondAlarm], m = cmos_[kMinuteAlarm], h = cmos_[kHourAlarm];
  int64_t at = after + 1;
  for (unsigned step = 0; step < 400; ++step) {
    const int64_t of_day = at - floor_div(at, 86'400) * 86'400;
    if (!any(h) && decode_hour(h) != of_day / 3600) {
      at += 3600 - of_day % 3600;
    } else if (!any(m) && decode(m) != of_day / 60 % 60) {
      at += 60 - of_day % 60;
    } else if (!any(s) && decode(s) != of_day % 60) {
      ++at;
    } else {
      return at;
    }
  }
  return INT64_MAX;  // values no clock shows
}

void Rtc::update_irq() {
  const uint8_t active = cmos_[kB] & cmos_[kC] & (kPeriodicBit | kAlarmBit | kUpdateBit);
  if (active != 0) cmos_[kC] |= kCInterrupt;
  irq_.set(active != 0);
}

// Brings the flags of register C up to `now`.
void Rtc::advance(GuestTsc now) {
  if (now <= synced_) return;
  const int64_t before = wall_second(synced_);
  const int64_t after = wall_second(now);
  if (!set_mode() && after != before) {
    cmos_[kC] |= kUpdateBit;
    if (next_alarm(before) <= after) cmos_[kC] |= kAlarmBit;
  }
  const uint64_t period = periodic_ticks();
  if (period != 0 && scale_ticks(now.value, kChainHz, kTscHz) / period !=
                         scale_ticks(synced_.value, kChainHz, kTscHz) / period)
    cmos_[kC] |= kPeriodicBit;
  synced_ = now;
  update_irq();
  rearm();
}

// The next event that would raise the interrupt. An event whose flag already stands adds nothing.
void Rtc::rearm() {
  deadline_.reset();
  const uint8_t wanted = cmos_[kB] & static_cast<uint8_t>(~cmos_[kC]);
  const auto sooner = [this](GuestTsc at) {
    if (!deadline_ || at < *deadline_) deadline_ = at;
  };
  const int64_t second = wall_second(synced_);
  const auto at_second = [this](int64_t when) {
    return GuestTsc(static_cast<uint64_t>(when - offset_s_) * kTscHz - offset_ns_);
  };
  if (!set_mode() && (wanted & kUpdateBit) != 0) sooner(at_second(second + 1));
  if (!set_mode() && (wanted & kAlarmBit) != 0) {
    const int64_t alarm = next_alarm(second);
    if (alarm != INT64_MAX) sooner(at_second(alarm));
  }
  const uint64_t period = periodic_ticks();
  if (period != 0 && (wanted & kPeriodicBit) != 0) {
    const uint64_t next = scale_ticks(synced_.value, kChainHz, kTscHz) / period + 1;
    sooner(GuestTsc(scale_ticks_up(next * period, kTscHz, kChainHz)));
  }
}

void Rtc::save(ByteWriter& out) const {
  out.put(index_);
  out.put_bytes(cmos_);
  out.put(offset_s_);
  out.put(offset_ns_);
  for (uint8_t byte :
       {frozen_.second, frozen_.minute, frozen_.hour, frozen_.weekday, frozen_.day, frozen_.month})
    out.put(byte);
  out.put(frozen_.year);
  out.put(synced_.value);
}

void Rtc::load(ByteReader& in) {
  index_ = in.get<uint8_t>() & 0x7f;
  in.get_into(cmos_);
  offset_s_ = in.get<int64_t>();
  offset_ns_ = in.get<uint64_t>();
  constexpr int64_t kFar = int64_t{1} << 50;  // no guest can set its clock further away
  if (offset_s_ > kFar || offset_s_ < -kFar || offset_ns_ >= kTscHz) {
    offset_s_ = 0;
    offset_ns_ = 0;
    in.fail();
  }
  for (uint8_t* byte : {&frozen_.second, &frozen_.minute, &frozen_.hour, &frozen_.weekday,
                        &frozen_.day, &frozen_.month})
    *byte = in.get<uint8_t>();
  frozen_.year = in.get<uint16_t>();
  synced_ = GuestTsc(in.get<uint64_t>());
  rearm();
}

}  // namespace us::hv
