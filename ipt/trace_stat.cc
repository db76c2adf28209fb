#include "ipt/trace_stat.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "ipt/normal_form.h"
#include "ipt/scanner.h"

namespace us::ipt {
namespace {

// Counts, and passes everything on to the normal form.
class CountingSink {
 public:
  static constexpr bool kWantsPads = true;

  struct Fast {
    NormalFormSink::Fast form;
    uint64_t bits = 0;
    uint64_t tips = 0;
    uint64_t pad_bytes = 0;

    void tnt(uint64_t more, unsigned n) {
      bits += n;
      form.tnt(more, n);
    }
    void tip(uint64_t ip) {
      ++tips;
      form.tip(ip);
    }
    void pads(unsigned n) { pad_bytes += n; }
    ptrdiff_t room() const { return form.room(); }
  };

  CountingSink() : form_(NormalFormOptions{}) {}

  bool plain() const { return form_.plain(); }
  Fast begin_fast() { return Fast{form_.begin_fast()}; }
  void end_fast(const Fast& fast) {
    form_.end_fast(fast.form);
    stat_.tnt_bits += fast.bits;
    stat_.tip += fast.tips;
    stat_.pad += fast.pad_bytes;
  }
  void packet(const Packet& packet) {
    stat_.tnt_bits += packet.bits;
    if (uint64_t* const count = counter(packet.kind)) ++*count;
    form_.packet(packet);
  }
  void pads(uint64_t n) { stat_.pad += n; }
  void damage(uint64_t offset) {
    ++stat_.errors;
    form_.damage(offset);
  }
  TraceStat finish() {
    stat_.digest = form_.end_epoch({});
    return std::exchange(stat_, {});
  }

 private:
  uint64_t* counter(PacketKind kind) {
    switch (kind) {
      case PacketKind::kTnt8:
      case PacketKind::kTnt64: return nullptr;
      case PacketKind::kPad: return &stat_.pad;
      case PacketKind::kPsb: return &stat_.psb;
      case PacketKind::kTip: return &stat_.tip;
      case PacketKind::kTipPge: return &stat_.tip_pge;
      case PacketKind::kTipPgd: return &stat_.tip_pgd;
      case PacketKind::kFup: return &stat_.fup;
      case PacketKind::kPip: return &stat_.pip;
      case PacketKind::kOvf: return &stat_.ovf;
      case PacketKind::kModeExec:
      case PacketKind::kModeTsx: return &stat_.mode;
      default: return &stat_.other;
    }
  }

  TraceStat stat_;
  NormalFormSink form_;
};

struct Row {
  const char* name;
  uint64_t value;
};

std::vector<Row> rows_of(const TraceStat& stat) {
  return {{"bytes", stat.bytes},
          {"psb", stat.psb},
          {"tnt_bits", stat.tnt_bits},
          {"tip", stat.tip},
          {"tip_pge", stat.tip_pge},
          {"tip_pgd", stat.tip_pgd},
          {"fup", stat.fup},
          {"pip", stat.pip},
          {"ovf", stat.ovf},
          {"mode", stat.mode},
          {"pad", stat.pad},
          {"other", stat.other},
          {"errors", stat.errors},
          {"skipped_bytes", stat.skipped_bytes},
          {"cut_bytes", stat.cut_bytes}};
}

UserError file_error(const char* id, const char* doing, const std::filesystem::path& path,
                     int error) {
  return {id,
          ExitCode::kLogUnreadable,
          fmt::format("cannot {} trace file {}", doing, path.string()),
          std::strerror(error),
          "a readable file of raw Intel PT bytes",
          "check the path"};
}

}  // namespace

struct TraceStatScanner::State {
  CountingSink sink;
  Scanner<CountingSink> scanner{sink};
};

TraceStatScanner::TraceStatScanner() : state_(std::make_unique<State>()) {}
TraceStatScanner::~TraceStatScanner() = default;
TraceStatScanner::TraceStatScanner(TraceStatScanner&&) noexcept = default;
TraceStatScanner& TraceStatScanner::operator=(TraceStatScanner&&) noexcept = default;

void TraceStatScanner::feed(ByteSpan bytes) { state_->scanner.feed(bytes); }

TraceStat TraceStatScanner::finish() {
  TraceStat out = state_->sink.finish();
  out.bytes = state_->scanner.bytes_fed();
  out.skipped_bytes = state_->scanner.skipped_bytes();
  out.cut_bytes = state_->scanner.pending_bytes();
  return out;
}

TraceStat trace_stat(ByteSpan bytes) {
  TraceStatScanner scanner;
  scanner.feed(bytes);
  return scanner.finish();
}

Result<TraceStat> trace_stat_of_file(const std::filesystem::path& path) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) return file_error("TRACE-001", "open", path, errno);
  TraceStatScanner scanner;
  Bytes piece(1u << 20);
  for (;;) {
    const size_t got = std::fread(piece.data(), 1, piece.size(), file.get());
    scanner.feed(ByteSpan(piece).first(got));
    if (got == piece.size()) continue;
    if (std::ferror(file.get()) != 0) return file_error("TRACE-002", "read", path, errno);
    return scanner.finish();
  }
}

nlohmann::json TraceStat::to_json() const {
  nlohmann::json out;
  out["schema"] = "understudy.trace-stat.1";
  for (const Row& row : rows_of(*this)) out[row.name] = row.value;
  out["digest"] = digest.combined().hex();
  return out;
}

std::string TraceStat::text() const {
  std::string out;
  for (const Row& row : rows_of(*this)) out += fmt::format("{:<14}{:>20}\n", row.name, row.value);
  out += fmt::format("{:<14}{}\n", "digest", digest.combined().hex());
  return out;
}

}  // namespace us::ipt
