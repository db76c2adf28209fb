#include "replay-engine/arbiter/claim_record.h"

#include <charconv>
#include <ctime>

namespace us::replay {
namespace {

constexpr std::string_view kFirstLine = "understudy-arbiter 1";

// Takes "KEY VALUE\n" off the front; with an empty key the whole line.
std::optional<std::string_view> take_line(std::string_view& text, std::string_view key) {
  const size_t end = text.find('\n');
  if (end == std::string_view::npos) return std::nullopt;
  std::string_view line = text.substr(0, end);
  text.remove_prefix(end + 1);
  if (key.empty()) return line;
  if (!line.starts_with(key) || line.size() <= key.size() || line[key.size()] != ' ')
    return std::nullopt;
  return line.substr(key.size() + 1);
}

bool printable(std::string_view name) {
  if (name.empty() || name.size() > kNameBytesMax) return false;
  for (const char c : name) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return false;
  }
  return true;
}

}  // namespace

std::string format_claim(const ClaimRecord& record) {
  return fmt::format("{}\nvm {}\ngeneration {}\nholder {}\ntime {}\n", kFirstLine, record.vm,
                     record.generation, record.holder, record.time);
}

std::optional<ClaimRecord> parse_claim(std::string_view text) {
  if (text.size() > kClaimBytesMax) return std::nullopt;
  const auto first = take_line(text, "");
  if (first != kFirstLine) return std::nullopt;
  const auto vm = take_line(text, "vm");
  const auto generation = take_line(text, "generation");
  const auto holder = take_line(text, "holder");
  const auto time = take_line(text, "time");
  if (!vm || !generation || !holder || !time || !text.empty()) return std::nullopt;
  const auto number = parse_generation(*generation);
  if (!number || !usable_vm_name(*vm) || !usable_node_name(*holder)) return std::nullopt;
  return ClaimRecord{std::string(*vm), *number, std::string(*holder), std::string(*time)};
}

std::string now_as_text() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  const size_t size = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return std::string(text, size);
}

std::optional<uint64_t> parse_generation(std::string_view digits) {
  uint64_t value = 0;
  const char* end = digits.data() + digits.size();
  if (digits.empty() || digits[0] < '1' || digits[0] > '9') return std::nullopt;
  const auto [stop, error] = std::from_chars(digits.data(), end, value);
  if (error != std::errc{} || stop != end || value > kGenerationMax) return std::nullopt;
  return value;
}

bool usable_node_name(std::string_view name) { return printable(name); }

bool usable_vm_name(std::string_view name) {
  return printable(name) && name[0] != '.' && name.find('/') == std::string_view::npos;
}

Claim judge(const ClaimRecord& found, uint64_t generation, const ArbiterOptions& me) {
  if (found.vm != me.vm_name) {
    return unreachable(generation,
                       fmt::format("it belongs to the VM {}, not to {}", found.vm, me.vm_name));
  }
  Claim claim{.generation = found.generation, .holder = found.holder};
  if (found.generation == generation && found.holder == me.node) {
    claim.verdict = ClaimVerdict::kWon;
  } else if (found.generation >= generation) {
    claim.verdict = ClaimVerdict::kLost;
    claim.detail = fmt::format("generation {} is held by {} since {}", found.generation,
                               found.holder, found.time);
  } else {
    claim.detail = fmt::format("generation {} was looked for, {} is what it says", generation,
                               found.generation);
  }
  return claim;
}

Claim unreachable(uint64_t generation, std::string detail) {
  return {
      .verdict = ClaimVerdict::kUnreachable, .generation = generation, .detail = std::move(detail)};
}

UserError unreachable_error(const std::string& arbiter, const std::string& detail) {
  return {.id = "ARB-002",
          .exit_code = ExitCode::kHostCannot,
          .what = "cannot ask the arbiter " + arbiter,
          .seen = detail,
          .needed = "an arbiter that answers, and that is this VM's own",
          .mend = "see to its storage or its servers; correct [ft] arbiter or --arbiter"};
}

}  // namespace us::replay
