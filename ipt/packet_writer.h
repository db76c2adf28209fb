// Writes the Intel PT stream a Xeon writes for a guest with BranchEn and DisRETC on and timing off.
// The software processor calls it as it retires branches; conditional() and indirect() are a few
// instructions. The order of packets follows SDM 3C 35.4.1 and table "Packet Generation under
// Different Enable Conditions".
//
//   writer.enable(rip)                       tracing begins, or goes on after an exit
//   writer.conditional(taken)                every Jcc, JCXZ, LOOP
//   writer.indirect(target)                  indirect JMP/CALL, RET, far branch, IRET, SYSCALL, …
//   writer.async(from, to)                   interrupt, exception: from is where it struck
//   writer.exec_mode(m), writer.cr3(value)   before the branch that changes the mode; at MOV CR3
//   writer.exit(rip) … writer.enable(rip)    a VM exit; epochs are cut here
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "ipt/packets.h"
#include "ipt/variation.h"

namespace us::ipt {

// Where the trace goes. All or nothing: false when there is no room, and then those bytes are lost
// and the trace goes on with an OVF.
class TraceSink {
 public:
  virtual ~TraceSink() = default;
  virtual bool accept(ByteSpan bytes) = 0;
  // Bytes are missing before those that come next: flags of a hardware capture, as in
  // PERF_RECORD_AUX (TRUNCATED 1, OVERWRITE 2, PARTIAL 4, COLLISION 8) and ipt::loss_flag.
  virtual void lost(uint32_t /*aux_flags*/) {}
  // The guest stands at `ip`, out of which no packet tells: a monitor executed an instruction for
  // it. Only while the guest is not in the processor, after every byte of before.
  virtual void stands(uint64_t /*ip*/) {}
  // A monitor, not the processor, delivered an event to the guest that stood at `from`. Likewise.
  virtual void delivered(uint64_t /*from*/, uint64_t /*to*/) {}
};

// A sink that keeps everything, up to a limit.
class TraceBuffer : public TraceSink {
 public:
  explicit TraceBuffer(size_t limit = ~size_t{0}) : limit_(limit) {}
  bool accept(ByteSpan bytes) override;
  const Bytes& bytes() const { return bytes_; }
  // What was gathered; the buffer is empty afterwards.
  Bytes take();

 private:
  size_t limit_;
  Bytes bytes_;
};

struct PacketWriterConfig {
  // Bytes between PSBs. Hardware: 2^(n+11), n = IA32_RTIT_CTL[27:24] (SDM 3C 35.2.8.2).
  uint64_t psb_period = 1u << 17;
  // Bytes gathered before the sink sees them; at least kMinStaging.
  size_t staging_bytes = 1u << 16;
  bool long_tnt = false;      // 47-branch TNTs; the Xeons seen so far only write short ones
  bool pip_non_root = false;  // NR in PIP: without "conceal VMX non-root operation"
  uint8_t initial_mode = kExecLong;
  VariationConfig variation = {};
};

class PacketWriter {
 public:
  static constexpr size_t kMinStaging = 2048;

  // `sink` outlives the writer.
  PacketWriter(TraceSink& sink, const PacketWriterConfig& config);
  // The cursor points into the staging buffer.
  PacketWriter(const PacketWriter&) = delete;
  PacketWriter& operator=(const PacketWriter&) = delete;

  void conditional(bool taken) {
    pending_.bits = (pending_.bits << 1) | static_cast<uint64_t>(taken);
    if (pending_.bits >= pending_.full) [[unlikely]]
      flush_full_bits();
  }

  // For code that does what conditional() does by itself: pending branches under a stop bit, the
  // newest lowest; once they reach `full`, write_branches() is called.
  struct PendingBranches {
    uint64_t bits = 1;
    uint64_t full = 1;
  };
  PendingBranches& pending_branches() { return pending_; }
  void write_branches() { flush_full_bits(); }

  void indirect(uint64_t ip) {
    if (cursor_ >= fast_end_) [[unlikely]] {
      indirect_slow(ip);
      return;
    }
    put_bits();
    put_ip(opcode::kTip, ip);
  }

  // An event that strikes before the instruction at `from`, or in it, and goes on at `to`.
  void async(uint64_t from, uint64_t to);
  // Packet generation begins at `ip`. No effect when enabled.
  void enable(uint64_t ip);
  // TIP.PGD alone, with the branch target that left tracing if given.
  void disable(std::optional<uint64_t> ip = std::nullopt);
  // A VM exit before (or in) the instruction at `rip`: FUP, TIP.PGD.
  void exit(uint64_t rip);
  // CR3 was written. While disabled only PSB+ will tell.
  void cr3(uint64_t value);
  // kExecLong, kExecD or 0. Emitted with the next TIP or TIP.PGE.
  void exec_mode(uint8_t mode);
  // The processor's own buffer overflowed: all is lost up to the next packet with an address.
  void overflow();

  // True when the period is over. A processor that runs long without indirect branches may call
  // psb(rip) then, between instructions; without that PSB+ waits for the next address.
  bool psb_due() const { return bytes_out() >= next_psb_; }
  void psb(uint64_t rip);
  // The next enable() is preceded by PSB+, as when software sets TraceEn with a byte count of zero
  // (SDM 3C 35.2.8.4, PacketByteCnt).
  void psb_at_enable() { next_psb_ = 0; }

  // Forces out pending branches and hands everything to the sink.
  void flush();

  bool enabled() const { return enabled_; }
  uint64_t overflows() const { return overflows_; }
  // Bytes written so far, without pending branches.
  uint64_t bytes_out() const {
    return bytes_before_ + static_cast<uint64_t>(cursor_ - staging_.data());
  }

 private:
  static constexpr size_t kRoom =
      512;  // one event with its packets, variation included, fits in this

  void put(uint8_t byte) { *cursor_++ = byte; }
  void put_value(uint64_t value, unsigned bytes) {
    std::memcpy(cursor_, &value, sizeof value);
    cursor_ += bytes;
  }
  void put_extended(uint8_t second) {
    put(opcode::kExtended);
    put(second);
  }

  // Pending branches as short TNTs: a full one holds six.
  void put_bits() {
    unsigned n = 63 - static_cast<unsigned>(std::countl_zero(pending_.bits));
    while (n > kTnt8MaxBits) {
      n -= kTnt8MaxBits;
      put(static_cast<uint8_t>(0x80 | ((pending_.bits >> n) & 0x3f) << 1));
    }
    if (n != 0) put(static_cast<uint8_t>((1u << n | (pending_.bits & ((1u << n) - 1))) << 1));
    pending_.bits = 1;
  }

  static IpBytes smallest_form(uint64_t changed, uint64_t ip) {
    if (changed >> 16 == 0) return IpBytes::kUpdate16;
    if (changed >> 32 == 0) return IpBytes::kUpdate32;
    return sign_extend_48(ip) == ip ? IpBytes::kSignExtended48 : IpBytes::kFull;
  }
  void put_ip(uint8_t op, uint64_t ip) {
    const uint64_t changed = ip ^ last_ip_;
    last_ip_ = ip;
    put_ip_as(op, smallest_form(changed, ip), ip);
  }
  void put_ip_as(uint8_t op, IpBytes form, uint64_t ip) {
    const auto ip_bytes = static_cast<unsigned>(form);
    put(static_cast<uint8_t>(op | ip_bytes << 5));
    put_value(ip, ip_payload_bytes(ip_bytes));
  }

  void flush_full_bits();
  void indirect_slow(uint64_t ip);
  void put_pending_bits();
  void put_tnt(uint64_t bits, unsigned n, bool as_long);
  void put_tip_family(uint8_t op, uint64_t ip);
  void put_pending_mode();
  void put_pip();
  void put_psb_plus(std::optional<uint64_t> rip);
  void put_psb_status(bool with_mode);
  void end_event(uint64_t ip);
  bool usable();
  void resume_after_overflow(uint64_t ip, uint8_t op);
  void lose();
  void force_out();
  void make_room();
  void hand_over();
  void refresh_fast_end();
  // Variation.
  void vary_at(uint64_t ip);
  bool defer(uint64_t ip);
  IpBytes varied_form(uint64_t changed, uint64_t ip, IpBytes smallest);
  void put_noise();
  void put_timing();
  void put_transparent_exit(uint64_t ip);
  uint64_t next_bits_full();

  TraceSink& sink_;
  PacketWriterConfig config_;
  Bytes staging_;
  PendingBranches pending_;
  uint8_t* cursor_;
  const uint8_t* fast_end_ = nullptr;  // before it indirect() needs to look at nothing else
  uint64_t last_ip_ = 0;

  bool enabled_ = false;
  bool lost_ = false;       // overflowed: dropping until an address comes
  bool mode_sent_ = false;  // since the last PSB
  uint8_t mode_;
  bool mode_pending_ = false;
  std::optional<uint64_t> cr3_;
  uint64_t bytes_before_ = 0;  // handed over
  uint64_t next_psb_ = 0;
  uint64_t overflows_ = 0;
  bool varied_;
  VariationRandom random_;
  std::vector<uint64_t> deferred_;  // TIPs waiting for their TNT
};

}  // namespace us::ipt
