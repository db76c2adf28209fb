#include "hv/devices/board_ports.h"

#include "hv/devices/layout.h"

namespace us::hv {

namespace {

constexpr uint16_t kPortPost = 0x80;
constexpr uint16_t kPortSystemControl = 0x92;
constexpr uint16_t kPortKeyboardStatus = 0x64;

// Keyboard controller commands that pulse its outputs; output 0 is the reset line (active low).
constexpr uint8_t kPulseFirst = 0xf0;

}  // namespace

uint32_t BoardPorts::pio_read(uint16_t port, unsigned size) {
  switch (port) {
    case kPortPost: return post_code_;
    case kPortSystemControl: return system_control_;
    case kPortReset: return reset_control_;
    case kPortKeyboardStatus: return 0;  // no data, ready for a command
    case kPortDebugExit: return 0;
    default: return static_cast<uint32_t>(all_ones(size));
  }
}

void BoardPorts::pio_write(uint16_t port, unsigned, uint32_t value) {
  const auto byte = static_cast<uint8_t>(value);
  switch (port) {
    case kPortPost: post_code_ = byte; break;
    case kPortSystemControl:
      if ((byte & 1) != 0) reset_requested_ = true;
      system_control_ = (byte & 0xfe) | 2;
      break;
    case kPortReset:  // ICH10 13.7.5: bit 2 rising resets; bit 1 says how
      if ((byte & 4) != 0) reset_requested_ = true;
      reset_control_ = byte & 0xa;
      break;
    case kPortKeyboardStatus:
      if (byte >= kPulseFirst && (byte & 1) == 0) reset_requested_ = true;
      break;
    case kPortDebugExit:
      if (!debug_code_) debug_code_ = (value << 1) | 1;
      break;
    default: break;
  }
}

void BoardPorts::save(ByteWriter& out) const {
  for (uint8_t byte : {post_code_, system_control_, reset_control_}) out.put(byte);
  out.put(static_cast<uint8_t>(reset_requested_));
  out.put(static_cast<uint8_t>(debug_code_.has_value()));
  out.put(debug_code_.value_or(0));
}

void BoardPorts::load(ByteReader& in) {
  for (uint8_t* byte : {&post_code_, &system_control_, &reset_control_}) *byte = in.get<uint8_t>();
  reset_requested_ = in.get<uint8_t>() != 0;
  const bool exited = in.get<uint8_t>() != 0;
  const auto code = in.get<uint32_t>();
  debug_code_.reset();
  if (exited) debug_code_ = code;
}

}  // namespace us::hv
