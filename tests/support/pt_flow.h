// libipt beside a guest: as the guest executes an instruction, libipt must reconstruct the same one
// from the trace. Memory is read when libipt asks, so code that changes is seen as it is then.
#pragma once

#include <cstdint>
#include <cstring>
#include <fmt/format.h>
#include <functional>
#include <intel-pt.h>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "hv/cpu/soft_vcpu.h"
#include "hv/cpu/trace.h"

namespace us::test {

class PtFlow {
 public:
  // `trace` and `cpu`, whose memory it reads, outlive it.
  PtFlow(ByteSpan trace, const hv::Cpu& cpu) : cpu_(cpu), decoder_(nullptr, pt_insn_free_decoder) {
    pt_config config;
    pt_config_init(&config);
    // libipt wants them mutable and does not write.
    config.begin = const_cast<uint8_t*>(trace.data());
    config.end = config.begin + trace.size();
    decoder_.reset(pt_insn_alloc_decoder(&config));
    pt_image_set_callback(pt_insn_get_image(decoder_.get()), read_guest, this);
    status_ = pt_insn_sync_forward(decoder_.get());
  }

  // The guest executed the instruction at this linear address. False: libipt says otherwise, see
  // error().
  bool executed(uint64_t linear) {
    if (!drain_events()) return false;
    pt_insn insn;
    std::memset(&insn, 0, sizeof insn);
    status_ = pt_insn_next(decoder_.get(), &insn, sizeof insn);
    ++instructions_;
    // At the end of the trace libipt still gives the last instruction, and then the error.
    if (insn.iclass == ptic_error) return fail(fmt::format("nothing, where {:#x} ran", linear));
    if (insn.ip != linear) return fail(fmt::format("{:#x}, where {:#x} ran", insn.ip, linear));
    return true;
  }

  // No instruction is left in the trace.
  bool ended() {
    if (!drain_events()) return status_ == -pte_eos;
    pt_insn insn;
    std::memset(&insn, 0, sizeof insn);
    status_ = pt_insn_next(decoder_.get(), &insn, sizeof insn);
    return insn.iclass == ptic_error && status_ == -pte_eos;
  }

  uint64_t instructions() const { return instructions_; }
  uint64_t events() const { return events_; }
  const std::string& error() const { return error_; }

 private:
  bool drain_events() {
    while (status_ >= 0 && (status_ & pts_event_pending) != 0) {
      pt_event event;
      status_ = pt_insn_event(decoder_.get(), &event, sizeof event);
      ++events_;
    }
    return status_ >= 0 || fail("an error");
  }

  bool fail(const std::string& what) {
    uint64_t offset = 0;
    pt_insn_get_offset(decoder_.get(), &offset);
    error_ = fmt::format("instruction {}: libipt gives {} ({}; trace offset {})", instructions_,
                         what, status_ < 0 ? pt_errstr(pt_errcode(status_)) : "no error", offset);
    return false;
  }

  static int read_guest(uint8_t* buffer, size_t size, const pt_asid*, uint64_t ip, void* self) {
    const hv::Cpu& cpu = static_cast<PtFlow*>(self)->cpu_;
    size_t done = 0;
    while (done < size) {
      const uint64_t at = ip + done;
      const size_t now = std::min(size - done, size_t{4096} - (at & 4095));
      uint64_t phys;
      if (!hv::translate_quietly(cpu, at, phys) ||
          !cpu.memory.read(GuestPhys(phys), {buffer + done, now}))
        break;
      done += now;
    }
    return done == 0 ? -pte_nomap : static_cast<int>(done);
  }

  const hv::Cpu& cpu_;
  std::unique_ptr<pt_insn_decoder, void (*)(pt_insn_decoder*)> decoder_;
  int status_ = 0;
  uint64_t instructions_ = 0, events_ = 0;
  std::string error_;
};

}  // namespace us::test
