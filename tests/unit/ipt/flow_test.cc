// A made-up program is walked at random, the walk reported to the packet writer, and libipt's
// instruction flow decoder has to find the very instructions that were walked.
#include <algorithm>
#include <cstring>
#include <doctest/doctest.h>
#include <intel-pt.h>
#include <map>
#include <memory>
#include <vector>

#include "ipt/packet_writer.h"
#include "ipt/variation.h"

namespace us::ipt::test {
namespace {

constexpr uint64_t kSlotBytes = 32;
constexpr size_t kSlots = 128;  // in each of two regions, user and kernel
constexpr uint64_t kRegions[2] = {0x400000, 0xffffffff81000000};

enum class End : uint8_t {
  kJcc,
  kLoop,
  kJump,
  kJumpIndirect,
  kCallIndirect,
  kReturn,
  kIret,
  kMovCr3
};

// Each slot holds three NOPs, a branch that the walk decides on, and a direct jump.
struct Slot {
  uint64_t at = 0;
  End end = End::kJump;
  uint64_t taken_to = 0;  // Jcc
  uint64_t then_to = 0;   // the direct jump
};

class Program {
 public:
  explicit Program(uint64_t seed) {
    VariationRandom random(seed);
    for (const uint64_t region : kRegions) {
      code_[region].resize(kSlots * kSlotBytes, 0x90);
      for (size_t i = 0; i < kSlots; ++i) {
        Slot slot;
        slot.at = region + i * kSlotBytes;
        // Direct jumps go forward: a loop of them alone leaves no packets, and nobody could tell
        // how often it went round.
        const bool last = i + 1 == kSlots;
        slot.end = last ? End::kReturn : static_cast<End>(random.below(8));
        slot.then_to =
            last ? slot.at : region + (i + 1 + random.below(kSlots - i - 1)) * kSlotBytes;
        // LOOP reaches no further than 127 bytes: to its own slot.
        slot.taken_to =
            slot.end == End::kLoop ? slot.at : region + random.below(kSlots) * kSlotBytes;
        assemble(slot, code_[region].data() + i * kSlotBytes);
        slots_[slot.at] = slot;
      }
    }
  }

  const Slot& slot_at(uint64_t ip) const { return slots_.at(ip); }

  // As pt_image's callback wants it.
  int read(uint8_t* buffer, size_t size, uint64_t ip) const {
    for (const auto& [region, code] : code_) {
      if (ip < region || ip >= region + code.size()) continue;
      const size_t left = region + code.size() - ip;
      const size_t n = size < left ? size : left;
      std::memcpy(buffer, code.data() + (ip - region), n);
      return static_cast<int>(n);
    }
    return -pte_nomap;
  }

  static size_t branch_bytes(End end) {
    switch (end) {
      case End::kJcc: return 6;
      case End::kMovCr3: return 3;
      case End::kJump: return 5;
      case End::kReturn: return 1;
      default: return 2;
    }
  }

 private:
  static void put(uint8_t*& out, std::initializer_list<uint8_t> bytes) {
    for (const uint8_t byte : bytes) *out++ = byte;
  }
  static void put_jump(uint8_t*& out, uint64_t at, uint64_t to) {
    *out++ = 0xe9;
    const auto distance = static_cast<int32_t>(to - (at + 5));
    std::memcpy(out, &distance, 4);
    out += 4;
  }
  static void assemble(const Slot& slot, uint8_t* code) {
    uint8_t* out = code + 3;
    const uint64_t at = slot.at + 3;
    switch (slot.end) {
      case End::kJcc: {
        put(out, {0x0f, 0x85});
        const auto distance = static_cast<int32_t>(slot.taken_to - (at + 6));
        std::memcpy(out, &distance, 4);
        out += 4;
        break;
      }
      case End::kLoop: put(out, {0xe2, static_cast<uint8_t>(slot.at - (at + 2))}); break;
      case End::kJump: break;
      case End::kJumpIndirect: put(out, {0xff, 0xe0}); break;
      case End::kCallIndirect: put(out, {0xff, 0xd0}); break;
      case End::kReturn: put(out, {0xc3}); break;
      case End::kIret: put(out, {0x48, 0xcf}); break;
      case End::kMovCr3: put(out, {0x0f, 0x22, 0xd8}); break;
    }
    put_jump(out, slot.at + static_cast<uint64_t>(out - code), slot.then_to);
  }

  std::map<uint64_t, std::vector<uint8_t>> code_;
  std::map<uint64_t, Slot> slots_;
};

// Walks and reports; notes every instruction executed.
class Walker {
 public:
  Walker(const Program& program, PacketWriter& writer, uint64_t seed)
      : program_(program), writer_(writer), random_(seed) {}

  void walk(size_t slots) {
    uint64_t at = any_slot();
    writer_.enable(at);
    for (size_t i = 0; i < slots; ++i) at = run_slot(program_.slot_at(at));
    writer_.exit(at);
    writer_.flush();
  }
  const std::vector<uint64_t>& executed() const { return executed_; }
  void forget() { executed_.clear(); }

 private:
  uint64_t any_slot() { return kRegions[random_.below(2)] + random_.below(kSlots) * kSlotBytes; }

  // What may happen before the instruction at `ip`; true when control went elsewhere, to `to`.
  bool interrupted(uint64_t ip, uint64_t& to) {
    if (writer_.psb_due()) writer_.psb(ip);
    if (random_.one_in(60)) {
      writer_.exit(ip);
      writer_.enable(ip);
    }
    if (!random_.one_in(50)) return false;
    to = any_slot();
    if (random_.one_in(4)) {
      writer_.exit(ip);
      writer_.enable(to);
    } else {
      writer_.async(ip, to);
    }
    return true;
  }

  uint64_t run_slot(const Slot& slot) {
    uint64_t to = 0;
    for (uint64_t ip = slot.at; ip < slot.at + 3; ++ip) {
      if (interrupted(ip, to)) return to;
      executed_.push_back(ip);
    }
    const uint64_t branch = slot.at + 3;
    if (interrupted(branch, to)) return to;
    executed_.push_back(branch);
    switch (slot.end) {
      case End::kJcc:
      case End::kLoop: {
        const bool taken = random_.below(3) != 0;
        writer_.conditional(taken);
        if (taken) return slot.taken_to;
        break;
      }
      case End::kJump: return slot.then_to;
      case End::kMovCr3: writer_.cr3(random_.below(1000) << 12); break;
      default:
        to = any_slot();
        writer_.indirect(to);
        return to;
    }
    const uint64_t jump = branch + Program::branch_bytes(slot.end);
    if (interrupted(jump, to)) return to;
    executed_.push_back(jump);
    return slot.then_to;
  }

  const Program& program_;
  PacketWriter& writer_;
  VariationRandom random_;
  std::vector<uint64_t> executed_;
};

int read_program(uint8_t* buffer, size_t size, const pt_asid*, uint64_t ip, void* program) {
  return static_cast<const Program*>(program)->read(buffer, size, ip);
}

struct Decoded {
  std::vector<uint64_t> executed;
  int status = 0;
  uint64_t overflows = 0;
};

Decoded decode(const Program& program, Bytes& trace) {
  Decoded out;
  pt_config config;
  pt_config_init(&config);
  config.begin = trace.data();
  config.end = trace.data() + trace.size();
  const std::unique_ptr<pt_insn_decoder, void (*)(pt_insn_decoder*)> decoder(
      pt_insn_alloc_decoder(&config), pt_insn_free_decoder);
  REQUIRE(decoder != nullptr);
  pt_image_set_callback(pt_insn_get_image(decoder.get()), read_program,
                        const_cast<Program*>(&program));
  int status = pt_insn_sync_forward(decoder.get());
  while (status >= 0) {
    while (status >= 0 && (status & pts_event_pending) != 0) {
      pt_event event;
      status = pt_insn_event(decoder.get(), &event, sizeof event);
      if (status >= 0 && event.type == ptev_overflow) ++out.overflows;
    }
    if (status < 0 || (status & pts_eos) != 0) break;
    pt_insn insn;
    std::memset(&insn, 0, sizeof insn);
    status = pt_insn_next(decoder.get(), &insn, sizeof insn);
    if (insn.iclass != ptic_error) out.executed.push_back(insn.ip);
  }
  out.status = status;
  return out;
}

void check_flow(uint64_t seed, const PacketWriterConfig& config, size_t slots) {
  CAPTURE(seed);
  const Program program(seed);
  TraceBuffer buffer;
  PacketWriter writer(buffer, config);
  Walker walker(program, writer, seed + 1000);
  walker.walk(slots);
  Bytes trace = buffer.take();
  const Decoded decoded = decode(program, trace);
  const std::vector<uint64_t>& executed = walker.executed();
  CAPTURE(decoded.status);
  CHECK((decoded.status >= 0 || decoded.status == -pte_eos));
  CHECK(decoded.executed.size() == executed.size());
  const auto [ours, theirs] = std::mismatch(executed.begin(), executed.end(),
                                            decoded.executed.begin(), decoded.executed.end());
  CAPTURE(ours - executed.begin());
  CHECK(ours == executed.end());
  CHECK(theirs == decoded.executed.end());
}

}  // namespace

TEST_CASE("libipt reconstructs every instruction of a traced walk") {
  for (uint64_t seed = 1; seed <= 20; ++seed) check_flow(seed, {.psb_period = 2048}, 20000);
  check_flow(21, {.psb_period = 2048, .long_tnt = true}, 20000);
  check_flow(22, {.psb_period = 64}, 20000);
  check_flow(23, {.staging_bytes = PacketWriter::kMinStaging, .pip_non_root = true}, 20000);
}

TEST_CASE("libipt reconstructs the walk from traces varied in one way") {
  for (uint64_t which = 0; which < 7; ++which) {
    CAPTURE(which);
    VariationConfig variation{.seed = which + 1};
    bool* const switches[] = {&variation.tnt_cuts,     &variation.psb_placement,
                              &variation.padding,      &variation.transparent_exits,
                              &variation.mode_repeats, &variation.ip_compression,
                              &variation.timing};
    *switches[which] = true;
    check_flow(which, {.psb_period = 2048, .variation = variation}, 10000);
  }
}

TEST_CASE(
    "libipt reconstructs the walk from varied traces too, but for deferred TIPs, which it does not "
    "undo") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    VariationConfig variation = VariationConfig::all(seed);
    variation.deferred_tips = false;
    check_flow(seed, {.psb_period = 2048, .variation = variation}, 10000);
  }
}

TEST_CASE("after an overflow libipt goes on at the address the trace goes on at") {
  const Program program(1);
  TraceBuffer buffer;
  PacketWriter writer(buffer, {});
  Walker walker(program, writer, 2);
  walker.walk(2000);
  writer.enable(kRegions[0]);
  writer.conditional(true);
  writer.overflow();
  writer.conditional(true);
  writer.indirect(kRegions[0] + 5 * kSlotBytes);  // told as OVF, FUP
  writer.exit(kRegions[0] + 5 * kSlotBytes);
  walker.forget();
  walker.walk(2000);
  Bytes trace = buffer.take();
  const Decoded decoded = decode(program, trace);
  CHECK(decoded.overflows == 1);
  const std::vector<uint64_t>& executed = walker.executed();
  REQUIRE(decoded.executed.size() > executed.size());
  CHECK(std::equal(executed.rbegin(), executed.rend(), decoded.executed.rbegin()));
}

}  // namespace us::ipt::test
