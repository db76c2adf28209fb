#include "replay-engine/diverge/state_diff.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <sstream>

#include "replay-engine/diverge/guest_view.h"

namespace us::replay {
namespace {

struct NamedBit {
  unsigned bit;
  const char* name;
};
// SDM 1 3.4.3
constexpr NamedBit kFlags[] = {{0, "CF"},  {2, "PF"},  {4, "AF"},  {6, "ZF"},  {7, "SF"},
                               {8, "TF"},  {9, "IF"},  {10, "DF"}, {11, "OF"}, {14, "NT"},
                               {16, "RF"}, {18, "AC"}, {21, "ID"}};

std::string flags_text(uint64_t changed, uint64_t a) {
  std::string text;
  for (const NamedBit& f : kFlags)
    if ((changed >> f.bit & 1) != 0)
      text += fmt::format("{}{} {}->{}", text.empty() ? "" : ", ", f.name, a >> f.bit & 1,
                          ~a >> f.bit & 1);
  return text;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> line_differences(const std::string& a, const std::string& b) {
  std::vector<std::string> found;
  const auto in_a = lines_of(a), in_b = lines_of(b);
  for (size_t i = 0; i < std::max(in_a.size(), in_b.size()); ++i) {
    const std::string left = i < in_a.size() ? in_a[i] : "", right = i < in_b.size() ? in_b[i] : "";
    if (left == right) continue;
    if (found.size() >= kLinesListed) break;
    found.push_back("a: " + left);
    found.push_back("b: " + right);
  }
  return found;
}

PageDifference compare_page(uint64_t address, const uint8_t* a, const uint8_t* b) {
  constexpr uint32_t kShown = 16;
  PageDifference d{.address = address, .first = kPageSize};
  for (uint32_t i = 0; i < kPageSize; ++i) {
    if (a[i] == b[i]) continue;
    d.first = std::min(d.first, i);
    d.last = i;
    ++d.bytes;
  }
  const uint32_t end = std::min<uint32_t>(std::min(d.last + 1, d.first + kShown), kPageSize);
  for (uint32_t i = d.first; i < end; ++i) {
    d.a += fmt::format("{:02x}", a[i]);
    d.b += fmt::format("{:02x}", b[i]);
  }
  return d;
}

void compare_memory(hv::Machine& a, hv::Machine& b, StateDifference& found) {
  const uint64_t pages = std::min(a.memory().page_count(), b.memory().page_count());
  for (uint64_t i = 0; i < pages; ++i) {
    const uint8_t *left = a.memory().page_host(i), *right = b.memory().page_host(i);
    if (std::memcmp(left, right, kPageSize) == 0) continue;
    if (++found.pages_in_all <= kPagesListed)
      found.pages.push_back(compare_page(a.memory().page_address(i).value, left, right));
  }
}

}  // namespace

StateDigests digests_of(hv::Machine& machine) {
  return {machine.register_digest(), machine.device_digest(), machine.memory_digest()};
}

std::string differing(const StateDigests& a, const StateDigests& b) {
  std::string text;
  const auto add = [&](bool differs, const char* what) {
    if (differs) text += (text.empty() ? "" : ", ") + std::string(what);
  };
  add(a.registers != b.registers, "registers");
  add(a.devices != b.devices, "devices");
  add(a.memory != b.memory, "memory");
  return text;
}

std::vector<RegisterDifference> register_differences(const hv::Registers& a,
                                                     const hv::Registers& b) {
  std::vector<RegisterDifference> found;
  const auto compare = [&](const char* name, uint64_t left, uint64_t right,
                           std::string detail = "") {
    if (left != right) found.push_back({name, left, right, std::move(detail)});
  };
  for (unsigned i = 0; i < 16; ++i) compare(register_name(i), a.gpr[i], b.gpr[i]);
  compare("rip", a.rip, b.rip);
  compare("rflags", a.rflags, b.rflags, flags_text(a.rflags ^ b.rflags, a.rflags));
  compare("cr0", a.cr0, b.cr0);
  compare("cr2", a.cr2, b.cr2);
  compare("cr3", a.cr3, b.cr3);
  compare("cr4", a.cr4, b.cr4);
  compare("efer", a.efer, b.efer);
  compare("cs", a.cs, b.cs);
  compare("ss", a.ss, b.ss);
  compare("ds", a.ds, b.ds);
  compare("es", a.es, b.es);
  compare("fs", a.fs, b.fs);
  compare("gs", a.gs, b.gs);
  compare("fs_base", a.fs_base, b.fs_base);
  compare("gs_base", a.gs_base, b.gs_base);
  return found;
}

StateDifference state_difference(hv::Machine& a, hv::Machine& b) {
  StateDifference found;
  found.registers = register_differences(a.vcpu().registers(), b.vcpu().registers());
  found.processor = line_differences(a.vcpu().dump(), b.vcpu().dump());
  found.devices = line_differences(a.platform().dump(), b.platform().dump());
  compare_memory(a, b, found);
  return found;
}

}  // namespace us::replay
