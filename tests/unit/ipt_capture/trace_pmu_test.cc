#include "ipt/capture/trace_pmu.h"

#include <cerrno>
#include <doctest/doctest.h>
#include <map>

#include "ipt/epoch_digest.h"

namespace us::ipt::test {
namespace {

// Only files: nothing is opened here.
class Files final : public TraceHost {
 public:
  std::map<std::string, std::string> files = {
      {"type", "8"},
      {"format/pt", "config:0"},
      {"format/noretcomp", "config:11"},
      {"format/branch", "config:13"},
      {"format/psb_period", "config:24-27"},
      {"caps/psb_cyc", "1"},
      {"caps/psb_periods", "3f"},
      {"caps/topa_multiple_entries", "1"},
      {"caps/payloads_lip", "0"},
  };
  std::optional<std::string> read_file(const std::string& path) override {
    constexpr std::string_view kFolder = "/sys/bus/event_source/devices/intel_pt/";
    if (!path.starts_with(kFolder)) return std::nullopt;
    const auto at = files.find(path.substr(kFolder.size()));
    return at == files.end() ? std::nullopt : std::optional(at->second);
  }
  int open(const perf_event_attr&, pid_t) override { return -ENOSYS; }
  void close(int) override {}
  int control(int, unsigned long) override { return -ENOSYS; }
  ssize_t read(int, void*, size_t) override { return -ENOSYS; }
  void* map(int, size_t, uint64_t, int& error) override {
    error = -ENOSYS;
    return nullptr;
  }
  void unmap(void*, size_t) override {}
  size_t page_bytes() override { return 4096; }
  int wait(int, int) override { return -ENOSYS; }
};

TEST_CASE("the PMU's type, bits and longest PSB period come from its files") {
  Files host;
  const auto pmu = find_trace_pmu(host);
  REQUIRE(pmu.ok());
  CHECK(pmu->type == 8);
  CHECK(pmu->config == (kWitnessConfig | 5u << 24));
  CHECK(pmu->psb_period == 1u << 16);
  CHECK_FALSE(pmu->linear_addresses);
  host.files["caps/payloads_lip"] = "1";
  host.files["caps/psb_periods"] = "1";
  const auto other = find_trace_pmu(host);
  REQUIRE(other.ok());
  CHECK(other->linear_addresses);
  CHECK(other->psb_period == 2048);
}

TEST_CASE("a PMU that lacks something is refused, with what it is") {
  struct Case {
    const char* file;
    const char* content;  // null: not there
    const char* seen;
  };
  for (const Case& c :
       {Case{"type", nullptr, "no intel_pt"}, Case{"type", "eight", "eight"},
        Case{"type", "99999999999", "99999999999"},
        Case{"caps/topa_multiple_entries", "0", "topa_multiple_entries"},
        Case{"caps/psb_cyc", nullptr, "psb_cyc"}, Case{"caps/psb_periods", "0", "PSB periods"},
        Case{"caps/psb_periods", "x", "PSB periods"}, Case{"format/branch", nullptr, "branch"},
        Case{"format/branch", "config:13-14", "branch"},
        Case{"format/branch", "config1:13", "branch"},
        Case{"format/noretcomp", "config:12", "config bits"},
        Case{"format/psb_period", "config:24", "PSB periods"},
        Case{"format/psb_period", "config:70-73", "PSB periods"}}) {
    CAPTURE(c.file);
    Files host;
    if (c.content == nullptr) host.files.erase(c.file);
    if (c.content != nullptr) host.files[c.file] = c.content;
    const auto pmu = find_trace_pmu(host);
    REQUIRE(!pmu.ok());
    CHECK(pmu.error().id == "IPT-003");
    CHECK_MESSAGE(pmu.error().seen.find(c.seen) != std::string::npos, pmu.error().seen);
  }
}

TEST_CASE("an event is of one thread, made standing, pinned, and of the guest alone where asked") {
  Files host;
  const auto pmu = find_trace_pmu(host);
  REQUIRE(pmu.ok());
  for (const bool guest_only : {true, false}) {
    const perf_event_attr attr =
        make_trace_attr(*pmu, guest_only ? TraceScope::kGuestOnly : TraceScope::kEverything, 4096);
    CHECK(attr.type == 8);
    CHECK((attr.disabled == 1));
    CHECK((attr.pinned == 1));
    CHECK((attr.inherit == 0));
    CHECK((attr.exclude_kernel == (guest_only ? 1 : 0)));
    CHECK((attr.exclude_user == (guest_only ? 1 : 0)));
    CHECK((attr.exclude_hv == 0));
    CHECK(attr.aux_watermark == 4096);
    CHECK(attr.aux_sample_size == 0);
  }
}

}  // namespace
}  // namespace us::ipt::test
