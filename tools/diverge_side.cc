#include "tools/diverge_side.h"

#include <nlohmann/json.hpp>

#include "hv/machine_config.h"
#include "hv/snapshot.h"
#include "logchannel/log_reader.h"
#include "tools/host_profile.h"
#include "tools/kept_log.h"

namespace us::tools {
namespace {

std::string text_of(const replay::Sections& sections, const char* name) {
  const auto found = sections.find(name);
  return found == sections.end() ? "" : std::string(found->second.begin(), found->second.end());
}

UserError other_machine(const RecordedSide& a, const RecordedSide& b, const std::string& seen) {
  return {.id = "DIV-001",
          .exit_code = ExitCode::kIncompatible,
          .what = a.folder + " and " + b.folder + " are recordings of different machines",
          .seen = seen,
          .needed = "two recordings of one VM, with the same kernel, initrd and command line",
          .mend = "compare each with itself: `understudy diverge DIR`"};
}

Bytes encoded(hv::MachineConfig config) {
  config.platform.rng_seed = {};
  config.platform.wall_clock_start = 0;
  ByteWriter out;
  hv::encode(config, out);
  return out.take();
}

// A log that a secondary kept: its description, up to the first section of the machine's state,
// which stays in `next`. Nothing in `next`: an ordinary recording.
replay::Sections description_before_state(log::LogStream& stream,
                                          std::optional<log::Record>& next) {
  constexpr uint64_t kBytesMost = 1 << 20;
  replay::Sections sections;
  for (uint64_t bytes = 0; bytes <= kBytesMost;) {
    auto record = stream.next();
    if (!record.ok() || !record->has_value()) break;
    auto* section = std::get_if<log::Section>(&(*record)->body);
    if (section == nullptr) break;
    if (section->name == "snapshot") {
      next = std::move(**record);
      break;
    }
    bytes += section->data.size();
    sections[section->name] = std::move(section->data);
  }
  return sections;
}

// The machine as the primary sent it.
Result<std::unique_ptr<hv::Machine>> machine_from_state(const std::string& folder,
                                                        hv::OutputSink& sink) {
  auto reader = log::LogReader::open(folder);
  if (!reader.ok()) return reader.error();
  std::optional<log::Record> next;
  description_before_state(**reader, next);
  StateReader state(**reader, next);
  return hv::read_snapshot([&](std::span<uint8_t> out) { return state.read(out); }, sink);
}

// What a secondary was told of the VM: no boot files, they are in its memory by then.
Result<RecordedVm> describe_kept(const replay::Sections& sections) {
  RecordedVm vm;
  auto config = parse_run_config(text_of(sections, "vm"), "the kept log's vm section");
  if (!config.ok()) return config.error();
  vm.config = std::move(config).value();
  const auto machine = sections.find("machine");
  ByteReader reader(machine == sections.end() ? ByteSpan() : ByteSpan(machine->second));
  vm.machine = hv::decode_machine_config(reader);
  if (!reader.failed()) return vm;
  return UserError{.id = "LOG-022",
                   .exit_code = ExitCode::kLogUnreadable,
                   .what = "the recording does not describe its machine",
                   .seen = "section \"machine\" is missing or damaged",
                   .needed = "sections vm and machine before the state",
                   .mend = "keep the log again with this build"};
}

// What a recording says of itself goes to terminals.
std::string plain(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) c = '?';
  return text;
}

std::string host_row(const RecordedSide& side, const char* key) {
  const auto host = nlohmann::json::parse(text_of(side.sections, "host"), nullptr, false);
  if (!host.is_object() || !host.contains(key)) return "unknown";
  return plain(host[key].is_string() ? host[key].get<std::string>() : host[key].dump());
}

std::string seed_of(const RecordedSide& side) {
  return digest_of(side.vm.machine.platform.rng_seed).hex().substr(0, 8);
}

}  // namespace

namespace {

// Fills in description and how to make the machine, for both kinds of recording.
Status describe(RecordedSide& recorded) {
  auto reader = log::LogReader::open(recorded.folder);
  if (!reader.ok()) return reader.error();
  std::optional<log::Record> state;
  recorded.sections = description_before_state(**reader, state);
  if (state) {
    auto vm = describe_kept(recorded.sections);
    if (!vm.ok()) return vm.error();
    recorded.vm = std::move(vm).value();
    recorded.side.make_machine =
        [folder = recorded.folder, backend = recorded.vm.config.backend](
            hv::OutputSink& sink) mutable -> Result<std::unique_ptr<hv::Machine>> {
      if (const Status s = use_backend(backend); !s.ok()) return s.error();
      return machine_from_state(folder, sink);
    };
    return Done{};
  }
  reader = log::LogReader::open(recorded.folder);
  if (!reader.ok()) return reader.error();
  auto opening = replay::read_opening(**reader);
  if (!opening.ok()) return opening.error();
  auto vm = read_description(recorded.folder, opening->sections);
  if (!vm.ok()) return vm.error();
  recorded.vm = std::move(vm).value();
  recorded.sections = std::move(opening->sections);
  recorded.side.make_machine =
      [machine = recorded.vm.machine, boot = recorded.vm.boot,
       backend = recorded.vm.config.backend](
          hv::OutputSink& sink) mutable -> Result<std::unique_ptr<hv::Machine>> {
    if (const Status s = use_backend(backend); !s.ok()) return s.error();
    auto made = hv::Machine::create(machine, sink);
    if (!made.ok()) return made.error();
    if (const Status s = (*made)->boot(boot); !s.ok()) return s.error();
    return made;
  };
  return Done{};
}

}  // namespace

Result<RecordedSide> open_side(const std::string& name, const SideOptions& options) {
  RecordedSide recorded{.folder = options.folder};
  if (const Status s = describe(recorded); !s.ok()) return s.error();
  std::vector<std::string> paths = options.images;
  for (size_t i = paths.size(); i < recorded.vm.config.disks.size(); ++i)
    paths.push_back(recorded.vm.config.disks[i].path);
  recorded.images = std::make_shared<ImageReader>(std::move(paths));

  replay::Side& side = recorded.side;
  side.name = name + ": " + options.folder;
  side.open_log = [folder = options.folder]() -> Result<std::unique_ptr<log::LogStream>> {
    auto log = log::LogReader::open(folder);
    if (!log.ok()) return log.error();
    return std::unique_ptr<log::LogStream>(std::move(log).value());
  };
  side.re_read = [images = recorded.images](uint8_t device, uint64_t offset, uint64_t length,
                                            uint32_t crc) {
    return images->read(device, offset, length, crc);
  };
  auto profile =
      profile_to_replay_with(options.pmu_profile, recorded.vm.profile, recorded.vm.config.backend);
  if (!profile.ok()) return profile.error();
  side.profile = std::move(profile).value();
  return recorded;
}

Status check_comparable(const RecordedSide& a, const RecordedSide& b) {
  if (encoded(a.vm.machine) != encoded(b.vm.machine))
    return other_machine(
        a, b,
        a.vm.machine.memory_bytes != b.vm.machine.memory_bytes
            ? fmt::format("{} MiB of memory against {} MiB", a.vm.machine.memory_bytes >> 20,
                          b.vm.machine.memory_bytes >> 20)
            : "other disks, networks or devices");
  const std::string boot_a = text_of(a.sections, "boot"), boot_b = text_of(b.sections, "boot");
  // A secondary's kept log begins in the middle: its logs will tell.
  if (!boot_a.empty() && !boot_b.empty() && boot_a != boot_b)
    return other_machine(a, b, plain(boot_a) + " against " + plain(boot_b));
  return Done{};
}

std::vector<replay::EnvironmentRow> environment_of(const RecordedSide& a, const RecordedSide* b) {
  const Bytes host = host_section(a.vm.config.backend.name);
  const auto here = nlohmann::json::parse(host.begin(), host.end(), nullptr, false);
  std::vector<replay::EnvironmentRow> rows;
  for (const char* key : {"build", "backend", "kernel", "machine"}) {
    const std::string now = here.value(key, "unknown");
    rows.push_back({key, host_row(a, key), b != nullptr ? host_row(*b, key) : now, now});
  }
  if (b != nullptr) {
    rows.push_back({"random seed", seed_of(a), seed_of(*b), ""});
    rows.push_back({"wall clock", std::to_string(a.vm.machine.platform.wall_clock_start),
                    std::to_string(b->vm.machine.platform.wall_clock_start), ""});
  }
  return rows;
}

}  // namespace us::tools
