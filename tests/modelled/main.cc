// The product's command line on a modelled host. What the host is like, and what befalls it, is in
// UNDERSTUDY_MODEL: words separated by commas.
//
//   seed=N             of everything that is drawn
//   skid=TEXT          of the counter's alarm, as `calibrate --skid` has it
//   signals=N          a signal that means nothing after about N branches; one entry in four
//   deliveries=N       one exception in N is caught by a signal before it is delivered
//   throttle=N         one overflow in N is swallowed
//   overcount=N        one overflow in N counts as a branch
//   stock              a kernel without our modules
//   no-kvm, no-counter, no-trace, zen
//
// A misuse of KVM that the model noticed ends the process with 99, whatever else it did.
#include <cerrno>
#include <cstdlib>
#include <string>

#include "base/check.h"
#include "hv/kvm/model/kvm_model.h"
#include "hv/kvm/model/system_model.h"
#include "hv/kvm/model/trace_model.h"
#include "tools/host.h"
#include "tools/verbs.h"

namespace {

using us::hv::kvm::model::KvmModel;
using us::hv::kvm::model::KvmModelOptions;
using us::hv::kvm::model::PerfModel;
using us::hv::kvm::model::PerfOptions;
using us::hv::kvm::model::SystemModel;
using us::hv::kvm::model::TraceModel;
using us::hv::kvm::model::TraceModelOptions;

constexpr int kMisused = 99;

struct Options {
  KvmModelOptions kvm = {.time_exits = true, .monitor_steps = true, .hides_spurious_faults = true};
  PerfOptions perf;
  TraceModelOptions trace;
  bool zen = false;
};

uint64_t number(const std::string& text, const std::string& word) {
  char* end = nullptr;
  const uint64_t value = std::strtoull(text.c_str(), &end, 10);
  US_CHECK(!text.empty() && *end == 0, "UNDERSTUDY_MODEL: no number in \"{}\"", word);
  return value;
}

void take(const std::string& word, Options& options) {
  const size_t equals = word.find('=');
  const std::string key = word.substr(0, equals);
  const std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
  if (key == "seed") {
    options.kvm.seed = options.perf.seed = options.trace.seed = number(value, word);
  } else if (key == "skid") {
    const auto skid = us::pmu::parse_skid(value);
    US_CHECK(skid.ok(), "UNDERSTUDY_MODEL: {}", skid.error().text());
    options.perf.skid = *skid;
  } else if (key == "signals") {
    options.kvm.interrupt_after_branches = number(value, word);
    options.kvm.interrupt_entry_one_in = 4;
  } else if (key == "deliveries") {
    options.kvm.interrupt_delivery_one_in = number(value, word);
  } else if (key == "throttle") {
    options.perf.throttle_one_in = number(value, word);
  } else if (key == "overcount") {
    options.perf.overcount_one_in = number(value, word);
  } else if (key == "stock") {
    options.kvm.time_exits = options.kvm.monitor_steps = options.kvm.hides_spurious_faults = false;
  } else if (key == "no-kvm") {
    options.kvm.open_error = ENOENT;
  } else if (key == "no-counter") {
    options.perf.open_error = ENOENT;
  } else if (key == "no-trace") {
    options.trace.there = false;
  } else if (key == "zen") {
    options.zen = true;
  } else {
    US_CHECK(false, "UNDERSTUDY_MODEL: unknown word \"{}\"", word);
  }
}

Options read_options() {
  Options options;
  const char* text = std::getenv("UNDERSTUDY_MODEL");
  std::string rest = text == nullptr ? "" : text;
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    take(rest.substr(0, comma), options);
    rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
  }
  return options;
}

bool misused = false;

// One host: the machine that KVM's vCPU runs on and the counters that count it.
struct ModelledHost {
  explicit ModelledHost(const Options& options)
      : perf(options.perf), trace(options.trace), kvm(options.kvm, &perf, &trace) {
    if (options.zen) system.processor = {"AuthenticAMD", 25, 1, 1, us::pmu::CoreType::kOnly};
  }
  ~ModelledHost() {
    for (const std::string& text : kvm.violations) {
      fmt::print(stderr, "modelled host: {}\n", text);
      misused = true;
    }
  }
  PerfModel perf;
  TraceModel trace;
  KvmModel kvm;
  SystemModel system;
};

}  // namespace

int main(int argc, char** argv) {
  const Options options = read_options();
  us::tools::use_host([options] {
    const auto host = std::make_shared<ModelledHost>(options);
    return us::tools::HostSeams{
        {host, &host->system}, {host, &host->kvm}, {host, &host->perf}, {host, &host->trace}};
  });
  const int code = us::tools::command_line(argc, argv);
  return misused ? kMisused : code;
}
