// What the verbs that run a guest share about its Intel PT trace.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>

#include "base/result.h"
#include "replay-engine/witness.h"

namespace us::tools {

// A file for raw trace bytes. Its first error is kept and reported by close().
class TraceFile {
 public:
  // Error: TRACE-003.
  static Result<std::unique_ptr<TraceFile>> create(const std::string& path);
  ~TraceFile();
  void write(ByteSpan bytes);
  // Error: TRACE-003.
  Status close();

 private:
  TraceFile(std::string path, std::FILE* file) : path_(std::move(path)), file_(file) {}
  UserError failed(int error) const;
  std::string path_;
  std::FILE* file_;
  int error_ = 0;
};

// A witness with what it writes to. Must go before the machine does.
struct Tracing {
  std::unique_ptr<TraceFile> file;
  std::unique_ptr<replay::Witness> witness;  // null: not traced
  // Ends the trace and closes the file.
  Status finish();
};

class IptOptions {
 public:
  // Whether the verb has digests to make or compare, a trace of the guest from start to end to
  // write.
  struct Offers {
    bool check = true;
    bool trace_out = true;
  };
  void add_to(CLI::App& app) { add_to(app, Offers{}); }
  void add_to(CLI::App& app, Offers offers);

  std::optional<bool> chosen() const { return check_; }
  // The option, else `by_default`.
  bool check(bool by_default) const { return check_.value_or(by_default); }
  // Errors: VM-004 a size that is none.
  Result<replay::WitnessOptions> witness(bool check_by_default) const;
  // Traces the machine from here on, where anybody wants it. Errors: as above, IPT-001, TRACE-003.
  Result<Tracing> start(hv::Machine& machine, bool check_by_default) const;

 private:
  std::optional<bool> check_;
  std::string trace_out_, model_buffer_;
  uint64_t model_seed_ = 0;
};

}  // namespace us::tools
