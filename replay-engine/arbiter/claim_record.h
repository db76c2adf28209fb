// What an arbiter keeps of one claim, as text: the same bytes in a file and in etcd.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "replay-engine/arbiter/arbiter.h"

namespace us::replay {

// Ten digits: etcd's keys sort as text.
constexpr uint64_t kGenerationMax = 9'999'999'999;
constexpr size_t kClaimBytesMax = 4096;
constexpr size_t kNameBytesMax = 255;

struct ClaimRecord {
  std::string vm;
  uint64_t generation = 0;
  std::string holder;
  std::string time;  // UTC, for people
};

// "understudy-arbiter 1\nvm NAME\ngeneration N\nholder NODE\ntime TIME\n"
std::string format_claim(const ClaimRecord& record);
// Exactly what format_claim writes; anything else is nothing.
std::optional<ClaimRecord> parse_claim(std::string_view text);
std::string now_as_text();

// Decimal digits without a leading zero, 1 to kGenerationMax.
std::optional<uint64_t> parse_generation(std::string_view digits);

// A VM's or node's name: 1 to 255 bytes, none of them a control character; a VM's has no '/' either
// and does not begin with a dot.
bool usable_node_name(std::string_view name);
bool usable_vm_name(std::string_view name);

// What a record found under `generation` means for this node's claim of it: won or lost; a record
// of another VM or generation means that nobody can tell.
Claim judge(const ClaimRecord& found, uint64_t generation, const ArbiterOptions& me);
Claim unreachable(uint64_t generation, std::string detail);
// ARB-002
UserError unreachable_error(const std::string& arbiter, const std::string& detail);

}  // namespace us::replay
