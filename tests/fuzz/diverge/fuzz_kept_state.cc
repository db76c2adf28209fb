// Any bytes as the machine's state in a kept log: what is restored can be saved again, and restored
// from that to the same state; and it executes a few instructions, whatever they may be. Checksums
// are made right first (a fuzzer does not find them), and memory is made small.
#include <algorithm>
#include <cstdint>

#include "base/check.h"
#include "hv/snapshot.h"
#include "tests/support/loadable_snapshot.h"
#include "tools/kept_log.h"

namespace us::tools {
namespace {

constexpr int kSteps = 64;

class NoOutputs final : public hv::OutputSink {
 public:
  void frame(uint8_t, Bytes) override {}
  void disk(hv::DiskRequest) override {}
  void console(uint8_t, ByteSpan) override {}
};

// The state in sections of `piece` bytes, and then another record.
class Sections final : public log::LogStream {
 public:
  Sections(ByteSpan bytes, size_t piece) : bytes_(bytes), piece_(piece) {}
  Result<std::optional<log::Record>> next() override {
    if (bytes_.empty()) return std::optional(log::Record{.at = {}, .body = log::Marker{}});
    const ByteSpan part = bytes_.first(std::min(piece_, bytes_.size()));
    bytes_ = bytes_.subspan(part.size());
    return std::optional(log::Record{
        .at = {}, .body = log::Section{"snapshot", 0, part.size(), {part.begin(), part.end()}}});
  }
  LogPosition position() const override { return {}; }
  log::StreamEnd end() const override { return {}; }

 private:
  ByteSpan bytes_;
  size_t piece_;
};

std::unique_ptr<hv::Machine> restored(ByteSpan bytes, size_t piece, hv::OutputSink& outputs) {
  Sections sections(bytes, piece);
  std::optional<log::Record> next;
  StateReader state(sections, next);
  auto machine =
      hv::read_snapshot([&](std::span<uint8_t> out) { return state.read(out); }, outputs);
  return machine.ok() ? std::move(machine).value() : nullptr;
}

void try_state(ByteSpan bytes, size_t piece) {
  NoOutputs outputs;
  const auto machine = restored(bytes, piece, outputs);
  if (machine == nullptr) return;
  Bytes saved;
  US_CHECK(hv::write_snapshot(*machine, [&](ByteSpan part) -> Status {
             saved.insert(saved.end(), part.begin(), part.end());
             return Done{};
           }).ok());
  const auto again = restored(saved, ~size_t{0}, outputs);
  US_CHECK(again != nullptr && again->whole_digest() == machine->whole_digest());
  for (int i = 0; i < kSteps; ++i) {
    const hv::MachineStop stop = machine->step();
    US_CHECK(again->step() == stop);
    if (stop == hv::MachineStop::kShutdown || stop == hv::MachineStop::kPower) break;
  }
  US_CHECK(again->whole_digest() == machine->whole_digest());
}

}  // namespace
}  // namespace us::tools

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  us::Bytes bytes(data + 1, data + size);
  const size_t piece = 1 + data[0] * 16;
  us::test::make_loadable(bytes);
  us::tools::try_state(bytes, piece);
  return 0;
}
