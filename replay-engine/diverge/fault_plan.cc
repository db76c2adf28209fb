#include "replay-engine/diverge/fault_plan.h"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>

#include "hv/cpu/soft_vcpu.h"
#include "replay-engine/diverge/guest_view.h"

namespace us::replay {
namespace {

struct KindName {
  FaultKind kind;
  const char* name;
  size_t fields;  // after the place
};
constexpr KindName kKinds[] = {
    {FaultKind::kFlipMemory, "flip", 2},
    {FaultKind::kSkipInterrupt, "skip-interrupt", 0},
    {FaultKind::kLateInterrupt, "late-interrupt", 0},
    {FaultKind::kChangeTsc, "rdtsc", 1},
    {FaultKind::kChangeCpuid, "cpuid", 3},
    {FaultKind::kFlipRegister, "register", 2},
};

UserError bad_fault(std::string_view text) {
  return {.id = "DIV-003",
          .exit_code = ExitCode::kUsage,
          .what = "this is no fault that can be planted",
          .seen = "\"" + std::string(text) + "\"",
          .needed =
              "flip@BRANCHES:ADDRESS:BIT, skip-interrupt@BRANCHES, late-interrupt@BRANCHES, "
              "rdtsc@BRANCHES:XOR, cpuid@BRANCHES:LEAF:REGISTER:BIT or "
              "register@BRANCHES:REGISTER:BIT; BRANCHES may be BRANCHES+STEPS",
          .mend = "for example flip@1000000:0x200000:3"};
}

bool parse_number(std::string_view text, uint64_t& value) {
  int base = 10;
  if (text.size() > 2 && text[0] == '0' && (text[1] | 0x20) == 'x') {
    text.remove_prefix(2);
    base = 16;
  }
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return error == std::errc() && end == text.data() + text.size();
}

bool parse_register(std::string_view text, unsigned& reg) {
  for (reg = 0; reg < 16; ++reg)
    if (text == register_name(reg)) return true;
  return false;
}

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

bool parse_place(std::string_view text, Fault& fault) {
  const auto parts = split(text, '+');
  if (parts.size() > 2 || !parse_number(parts[0], fault.at.value)) return false;
  return parts.size() == 1 || parse_number(parts[1], fault.steps);
}

bool parse_fields(const std::vector<std::string_view>& fields, Fault& fault) {
  uint64_t bit = 0, leaf = 0;
  bool ok = true;
  switch (fault.kind) {
    case FaultKind::kFlipMemory:
      ok = parse_number(fields[1], fault.address) && parse_number(fields[2], bit) && bit < 8;
      break;
    case FaultKind::kChangeTsc:
      ok = parse_number(fields[1], fault.exclusive_or) && fault.exclusive_or != 0;
      break;
    case FaultKind::kChangeCpuid:
      ok = parse_number(fields[1], leaf) && leaf <= 0xffff'ffff &&
           parse_register(fields[2], fault.reg) && fault.reg < 4 && parse_number(fields[3], bit) &&
           bit < 32;
      fault.leaf = static_cast<uint32_t>(leaf);
      break;
    case FaultKind::kFlipRegister:
      ok = parse_register(fields[1], fault.reg) && parse_number(fields[2], bit) && bit < 64;
      break;
    default: break;
  }
  fault.bit = static_cast<unsigned>(bit);
  return ok;
}

bool interrupt_comes_now(hv::Machine& machine) {
  return machine.platform().interrupt_pending() && machine.vcpu().interruptible();
}

bool at_instruction(hv::Machine& machine, std::initializer_list<uint8_t> bytes) {
  uint8_t code[4] = {};
  if (read_guest(machine, machine.point().rip, {code, bytes.size()}) != bytes.size()) return false;
  return std::equal(bytes.begin(), bytes.end(), code);
}

// Behind the processor's back: setting registers in its face would show in its trace.
void change_register(hv::Machine& machine, unsigned reg, uint64_t exclusive_or) {
  dynamic_cast<hv::SoftVcpu&>(machine.vcpu()).cpu().regs[reg] ^= exclusive_or;
}

// The controller believes it was delivered and handled.
void swallow_interrupt(hv::Machine& machine) {
  constexpr uint64_t kEndOfInterrupt = 0xfee0'00b0;
  if (machine.platform().acknowledge_interrupt())
    machine.platform().mmio_write(GuestPhys(kEndOfInterrupt), 4, 0);
}

}  // namespace

Result<Fault> parse_fault(std::string_view text) {
  const size_t at = text.find('@');
  if (at == std::string_view::npos) return bad_fault(text);
  const auto kind = std::find_if(std::begin(kKinds), std::end(kKinds),
                                 [&](const KindName& k) { return text.substr(0, at) == k.name; });
  if (kind == std::end(kKinds)) return bad_fault(text);
  const auto fields = split(text.substr(at + 1), ':');
  Fault fault{.kind = kind->kind};
  if (fields.size() != kind->fields + 1 || !parse_place(fields[0], fault) ||
      !parse_fields(fields, fault))
    return bad_fault(text);
  return fault;
}

std::string to_text(const Fault& fault) {
  const char* name = "";
  for (const KindName& k : kKinds)
    if (k.kind == fault.kind) name = k.name;
  std::string text = fmt::format("{}@{}", name, fault.at.value);
  if (fault.steps != 0) text += fmt::format("+{}", fault.steps);
  switch (fault.kind) {
    case FaultKind::kFlipMemory: return text + fmt::format(":{:#x}:{}", fault.address, fault.bit);
    case FaultKind::kChangeTsc: return text + fmt::format(":{:#x}", fault.exclusive_or);
    case FaultKind::kChangeCpuid:
      return text + fmt::format(":{:#x}:{}:{}", fault.leaf, register_name(fault.reg), fault.bit);
    case FaultKind::kFlipRegister:
      return text + fmt::format(":{}:{}", register_name(fault.reg), fault.bit);
    default: return text;
  }
}

FaultInjector::FaultInjector(std::vector<Fault> plan) : plan_(std::move(plan)) {
  std::stable_sort(plan_.begin(), plan_.end(), [](const Fault& a, const Fault& b) {
    return a.at != b.at ? a.at < b.at : a.steps < b.steps;
  });
}

Branches FaultInjector::next_at() const {
  return next_ < plan_.size() ? plan_[next_].at : Branches(~uint64_t{0});
}

bool FaultInjector::wants_steps(const hv::Machine& machine) const {
  return next_ < plan_.size() && machine.point().branches >= plan_[next_].at;
}

hv::MachineStop FaultInjector::step(hv::Machine& machine) {
  US_CHECK(wants_steps(machine));
  const Fault& fault = plan_[next_];
  hv::MachineStop stop = hv::MachineStop::kLimit;
  if (steps_taken_ >= fault.steps) {
    const Outcome outcome = perform(machine, fault, stop);
    if (outcome != Outcome::kWaits) {
      ++next_;
      ++done_;
      steps_taken_ = 0;
      return outcome == Outcome::kStepped ? stop : machine.step();
    }
    if (machine.point().branches.value - fault.at.value > kPatience) {
      ++next_;
      steps_taken_ = 0;
      return machine.step();
    }
  }
  ++steps_taken_;
  return machine.step();
}

FaultInjector::Outcome FaultInjector::perform(hv::Machine& machine, const Fault& fault,
                                              hv::MachineStop& stop) {
  switch (fault.kind) {
    case FaultKind::kFlipMemory: {
      uint8_t byte = 0;
      if (!machine.memory().read(GuestPhys(fault.address), {&byte, 1})) return Outcome::kDone;
      byte ^= static_cast<uint8_t>(1u << fault.bit);
      machine.memory().write(GuestPhys(fault.address), {&byte, 1});
      return Outcome::kDone;
    }
    case FaultKind::kFlipRegister:
      change_register(machine, fault.reg, uint64_t{1} << fault.bit);
      return Outcome::kDone;
    case FaultKind::kSkipInterrupt:
      if (!interrupt_comes_now(machine)) return Outcome::kWaits;
      swallow_interrupt(machine);
      return Outcome::kDone;
    case FaultKind::kLateInterrupt:
      if (!interrupt_comes_now(machine) || machine.vcpu().halted()) return Outcome::kWaits;
      machine.vcpu().step();  // not the machine's, which would deliver first
      return Outcome::kStepped;
    case FaultKind::kChangeTsc:
      if (!at_instruction(machine, {0x0f, 0x31}) || interrupt_comes_now(machine))
        return Outcome::kWaits;
      stop = machine.step();
      change_register(machine, 0, fault.exclusive_or & 0xffff'ffff);
      return Outcome::kStepped;
    case FaultKind::kChangeCpuid: {
      const auto asked = static_cast<uint32_t>(machine.vcpu().registers().gpr[0]);
      if (asked != fault.leaf || !at_instruction(machine, {0x0f, 0xa2}) ||
          interrupt_comes_now(machine))
        return Outcome::kWaits;
      stop = machine.step();
      change_register(machine, fault.reg, uint64_t{1} << fault.bit);
      return Outcome::kStepped;
    }
  }
  return Outcome::kDone;
}

}  // namespace us::replay
