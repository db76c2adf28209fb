#include "tools/ipt_options.h"

#include <cerrno>
#include <cstring>

#include "tools/vm_config.h"

namespace us::tools {

Result<std::unique_ptr<TraceFile>> TraceFile::create(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "wbe");
  std::unique_ptr<TraceFile> out(new TraceFile(path, file));
  if (file == nullptr) return out->failed(errno);
  return out;
}

TraceFile::~TraceFile() {
  if (file_ != nullptr) std::fclose(file_);
}

UserError TraceFile::failed(int error) const {
  return {.id = "TRACE-003",
          .exit_code = ExitCode::kHostCannot,
          .what = "the trace file cannot be written",
          .seen = fmt::format("{}: {}", path_, std::strerror(error)),
          .needed = "a path that can be written, and room there",
          .mend = "correct --trace-out, or make room"};
}

void TraceFile::write(ByteSpan bytes) {
  if (error_ == 0 && std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size())
    error_ = errno;
}

Status TraceFile::close() {
  if (file_ != nullptr && std::fclose(file_) != 0 && error_ == 0) error_ = errno;
  file_ = nullptr;
  if (error_ != 0) return failed(error_);
  return Done{};
}

Status Tracing::finish() {
  if (witness) witness->stop();
  return file ? file->close() : Done{};
}

void IptOptions::add_to(CLI::App& app, Offers offers) {
  const char* group = "Intel PT";
  if (offers.check) {
    app.add_flag_callback(
           "--ipt-check", [this] { check_ = true; },
           "trace the guest with Intel PT, and digest its path at every epoch")
        ->group(group);
    app.add_flag_callback(
           "--no-ipt-check", [this] { check_ = false; }, "do not, whatever the description says")
        ->group(group);
  }
  if (offers.trace_out)
    app.add_option("--trace-out", trace_out_, "write the raw trace of the guest to this file")
        ->group(group);
  app.add_option("--ipt-model-seed", model_seed_,
                 "software processor: write packets as another processor might, from this seed")
      ->group(group);
  app.add_option("--ipt-model-buffer", model_buffer_,
                 "software processor: lose trace beyond this size in an epoch, e.g. 64K")
      ->group(group);
}

Result<replay::WitnessOptions> IptOptions::witness(bool check_by_default) const {
  replay::WitnessOptions options{.check = check(check_by_default), .variation_seed = model_seed_};
  if (model_buffer_.empty()) return options;
  const auto bytes = parse_size(model_buffer_, "--ipt-model-buffer");
  if (!bytes.ok()) return bytes.error();
  options.buffer_bytes = *bytes;
  return options;
}

Result<Tracing> IptOptions::start(hv::Machine& machine, bool check_by_default) const {
  auto options = witness(check_by_default);
  if (!options.ok()) return options.error();
  Tracing out;
  if (!trace_out_.empty()) {
    auto file = TraceFile::create(trace_out_);
    if (!file.ok()) return file.error();
    out.file = std::move(file).value();
    options->raw = [file = out.file.get()](ByteSpan bytes) { file->write(bytes); };
  }
  if (!options->wanted()) return out;
  auto witness = replay::Witness::start(machine, std::move(*options));
  if (!witness.ok()) return witness.error();
  out.witness = std::move(witness).value();
  return out;
}

}  // namespace us::tools
