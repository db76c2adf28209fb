#include "hv/machine.h"

#include "base/check.h"
#include "base/overloaded.h"
#include "hv/boot_vcpu.h"
#include "hv/cpu/soft_vcpu.h"

namespace us::hv {
namespace {

VcpuFactory& default_vcpu() {
  static VcpuFactory factory;
  return factory;
}

}  // namespace

void set_default_vcpu(VcpuFactory factory) { default_vcpu() = std::move(factory); }

Result<std::unique_ptr<Machine>> Machine::create(const MachineConfig& config, OutputSink& output,
                                                 const VcpuFactory& factory) {
  auto memory = GuestMemory::create(config.memory_bytes);
  if (!memory.ok()) return memory.error();
  std::unique_ptr<Machine> machine(new Machine(config, std::move(memory).value(), output));
  if (Status s = machine->make_vcpu(factory ? factory : default_vcpu()); !s.ok()) return s.error();
  return machine;
}

Status Machine::make_vcpu(const VcpuFactory& factory) {
  if (!factory) {
    vcpu_ = std::make_unique<SoftVcpu>(*memory_, static_cast<Bus&>(*this));
    return Done{};
  }
  auto made = factory(*memory_, static_cast<Bus&>(*this));
  if (!made.ok()) return made.error();
  vcpu_ = std::move(made).value();
  return Done{};
}

Machine::Machine(const MachineConfig& config, std::unique_ptr<GuestMemory> memory,
                 OutputSink& output)
    : config_(config), memory_(std::move(memory)), digest_(*memory_) {
  platform_ = std::make_unique<Platform>(config_.platform, *memory_,
                                         static_cast<TimeSource&>(*this), output);
  dump_token_ = add_state_dump([this] { return dump(); });
}

Machine::~Machine() { remove_state_dump(dump_token_); }

Status Machine::boot(BootConfig config) {
  config.acpi_rsdp = platform_->install_acpi_tables().value;
  auto state = load_kernel(*memory_, config);
  if (!state.ok()) return state.error();
  enter_boot_state(*vcpu_, *state);
  return Done{};
}

MachineStop Machine::run(const RunRequest& request) {
  RunRequest effective = request;
  // The vCPU does not look for its breakpoint where a run begins, but for this machine's run that
  // is the middle: before an interrupt is delivered, and on its handler's first instruction.
  const auto at_breakpoint = [&] {
    return request.has_breakpoint && point().rip == request.breakpoint;
  };
  for (bool first = true;; first = false) {
    if (platform_->power().state != PowerState::kRunning) return MachineStop::kPower;
    if (!first && at_breakpoint()) return MachineStop::kBreakpoint;
    const uint64_t delivered = interrupts_since_input_;
    deliver_pending();
    if (delivered != interrupts_since_input_ && at_breakpoint()) return MachineStop::kBreakpoint;
    effective.stop_when_interruptible = platform_->interrupt_pending();
    if (const auto stop = outcome(vcpu_->run(effective))) return *stop;
  }
}

MachineStop Machine::step() {
  if (platform_->power().state != PowerState::kRunning) return MachineStop::kPower;
  const ExecutionPoint before = point();
  deliver_pending();
  if (point() != before) return MachineStop::kLimit;
  const StopReason reason = vcpu_->step();
  if (reason == StopReason::kStepped || reason == StopReason::kAttention) {
    timers_changed();
    return platform_->power().state != PowerState::kRunning ? MachineStop::kPower
                                                            : MachineStop::kLimit;
  }
  return outcome(reason).value_or(MachineStop::kLimit);
}

void Machine::deliver_pending() {
  if (platform_->nmi_pending() && platform_->take_nmi()) {
    vcpu_->inject_nmi();
    ++interrupts_since_input_;
  }
  if (!platform_->interrupt_pending() || !vcpu_->interruptible()) return;
  const auto vector = platform_->acknowledge_interrupt();
  if (!vector) return;
  vcpu_->inject_interrupt(*vector);
  ++interrupts_since_input_;
}

// What a vCPU stop means for the machine; empty: go on.
std::optional<MachineStop> Machine::outcome(StopReason reason) {
  switch (reason) {
    case StopReason::kAlarm: return MachineStop::kLimit;
    case StopReason::kKicked: return MachineStop::kKicked;
    case StopReason::kBreakpoint: return MachineStop::kBreakpoint;
    case StopReason::kShutdown: return MachineStop::kShutdown;
    case StopReason::kFailed: return MachineStop::kFailed;
    case StopReason::kHalted: return MachineStop::kIdle;
    case StopReason::kInterruptWindow:
    case StopReason::kStepped: return std::nullopt;
    case StopReason::kAttention:
      if (timers_changed()) return MachineStop::kTimersChanged;
      return std::nullopt;
  }
  US_CHECK(false, "unknown stop reason");
}

bool Machine::timers_changed() {
  const auto deadline = platform_->next_deadline();
  if (deadline == reported_deadline_) return false;
  reported_deadline_ = deadline;
  return true;
}

void Machine::apply(const Input& input) {
  interrupts_since_input_ = 0;
  std::visit(Overloaded{
                 [this](const AnchorInput& in) {
                   clock_.set_anchor(in.anchor);
                   platform_->advance(now());
                   reported_deadline_ = platform_->next_deadline();
                 },
                 [this](const FrameInput& in) { platform_->frame(in.device, in.frame); },
                 [this](const DiskDoneInput& in) { platform_->disk_done(in); },
                 [this](const ConsoleInput& in) { platform_->console_input(in.device, in.bytes); },
                 [this](const CommandInput& in) {
                   if (in.command == Command::kPowerButton) platform_->power_button();
                   if (in.command == Command::kNmi) platform_->nmi();
                   if (in.command == Command::kCheckpoint) vcpu_->drop_caches();
                 },
             },
             input);
}

GuestTsc Machine::now() { return clock_.at(vcpu_->branches()); }

bool Machine::halted_for_good() const {
  return vcpu_->halted() && !vcpu_->interruptible() && !platform_->nmi_pending();
}

uint32_t Machine::pio_read(uint16_t port, unsigned size) { return platform_->pio_read(port, size); }
void Machine::pio_write(uint16_t port, unsigned size, uint32_t value) {
  platform_->pio_write(port, size, value);
}
uint64_t Machine::mmio_read(GuestPhys address, unsigned size) {
  return platform_->mmio_read(address, size);
}
void Machine::mmio_write(GuestPhys address, unsigned size, uint64_t value) {
  platform_->mmio_write(address, size, value);
}
bool Machine::msr_read(uint32_t index, uint64_t& value) {
  return platform_->msr_read(index, value);
}
bool Machine::msr_write(uint32_t index, uint64_t value) {
  return platform_->msr_write(index, value);
}
uint8_t Machine::task_priority() { return platform_->task_priority(); }
void Machine::set_task_priority(uint8_t priority) { platform_->set_task_priority(priority); }

GuestTsc Machine::tsc(Branches now) { return clock_.at(now) + clock_.guest_offset(); }

void Machine::set_tsc(Branches now, GuestTsc value) {
  clock_.set_guest_offset((value - clock_.at(now)).value);
  platform_->guest_offset_changed();
}

bool Machine::take_attention() { return platform_->take_attention(); }

Digest Machine::register_digest() const {
  ByteWriter bytes;
  vcpu_->digest_state(bytes);
  return digest_of(bytes.bytes());
}

Digest Machine::device_digest() const {
  ByteWriter bytes;
  platform_->digest_state(bytes);
  clock_.save(bytes);
  return digest_of(bytes.bytes());
}

Digest Machine::memory_digest() {
  vcpu_->collect_dirty_pages();
  const Digest digest = digest_.update(*memory_);
  vcpu_->forget_dirty_pages();
  return digest;
}

Digest Machine::whole_digest() {
  Digester all;
  for (const Digest& d : {register_digest(), device_digest(), memory_digest()}) {
    all.add_u64(d.low);
    all.add_u64(d.high);
  }
  return all.digest();
}

void Machine::save_state(ByteWriter& out) {
  clock_.save(out);
  vcpu_->save(out);
  out.put(interrupts_since_input_);
  ByteWriter translations, devices;
  vcpu_->save_translations(translations);
  out.put_blob(translations.bytes());
  platform_->save(devices);
  out.put_blob(devices.bytes());
}

Status Machine::load_state(ByteReader& in) {
  clock_.load(in);
  if (Status s = vcpu_->load(in); !s.ok()) return s;
  interrupts_since_input_ = in.get<uint64_t>();
  const Bytes translations = in.get_blob(), devices = in.get_blob();
  ByteReader translations_reader(translations), devices_reader(devices);
  if (Status s = vcpu_->load_translations(translations_reader); !s.ok()) return s;
  return platform_->load(devices_reader);
}

std::string Machine::dump() const {
  return (vcpu_ != nullptr ? vcpu_->dump() : std::string()) + platform_->dump();
}

}  // namespace us::hv
