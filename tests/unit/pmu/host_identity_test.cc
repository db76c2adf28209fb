#include "pmu/host_identity.h"

#include <doctest/doctest.h>

namespace us::pmu {
namespace {

const HostIdentity kHere{"Some CPU @ 2.0GHz", "GenuineIntel",  6, 0x8f, 8,
                         "0x2b000590",        "6.1.0-18-amd64"};

HostProfile measured_on(const HostIdentity& host) {
  HostProfile profile;
  profile.event = "BR_INST_RETIRED:COND";
  profile.confidence = Confidence::kMeasured;
  profile.host = host;
  return profile;
}

}  // namespace

TEST_CASE(
    "a profile of this host is accepted; another processor's is PMU-021, an old one PMU-022") {
  CHECK_FALSE(refuse_foreign(measured_on(kHere), kHere, "host.toml").has_value());
  HostIdentity other = kHere;
  other.model = 0x6a;
  auto refused = refuse_foreign(measured_on(other), kHere, "host.toml");
  REQUIRE(refused.has_value());
  CHECK(refused->id == "PMU-021");
  CHECK(refused->exit_code == ExitCode::kIncompatible);
  CHECK(refused->mend.find("understudy calibrate") != std::string::npos);
  for (std::string HostIdentity::*member : {&HostIdentity::microcode, &HostIdentity::kernel}) {
    HostIdentity older = kHere;
    older.*member = "older";
    refused = refuse_foreign(measured_on(older), kHere, "host.toml");
    REQUIRE(refused.has_value());
    CHECK(refused->id == "PMU-022");
    CHECK(refused->seen.find("older") != std::string::npos);
  }
}

TEST_CASE("what a profile does not say of its host, and a modelled counter, refuse nothing") {
  CHECK_FALSE(refuse_foreign(measured_on({}), kHere, "x").has_value());
  HostIdentity no_microcode = kHere;
  no_microcode.microcode.clear();
  CHECK_FALSE(refuse_foreign(measured_on(no_microcode), kHere, "x").has_value());
  HostProfile modelled = measured_on({"other", "AuthenticAMD", 25, 1, 1, "1", "5"});
  modelled.model = ModelSettings{};
  CHECK_FALSE(refuse_foreign(modelled, kHere, "x").has_value());
  HostProfile table = measured_on({"other", "AuthenticAMD", 25, 1, 1, "1", "5"});
  table.confidence = Confidence::kTable;
  CHECK_FALSE(refuse_foreign(table, kHere, "x").has_value());
}

TEST_CASE("values of /proc/cpuinfo are found by their whole key") {
  const char* text =
      "processor\t: 0\nmodel\t\t: 143\nmodel name\t: Some CPU @ 2.0GHz\nmicrocode\t: 0x2b000590\n"
      "flags\t\t:\n\nprocessor\t: 1\nmicrocode\t: 0x1\n";
  CHECK(cpuinfo_value(text, "model name") == "Some CPU @ 2.0GHz");
  CHECK(cpuinfo_value(text, "model") == "143");
  CHECK(cpuinfo_value(text, "microcode") == "0x2b000590");
  CHECK(cpuinfo_value(text, "flags").empty());
  CHECK(cpuinfo_value(text, "nothing").empty());
  CHECK(cpuinfo_value("", "model").empty());
}

TEST_CASE("this host has a processor and a kernel") {
  const HostIdentity here = this_host();
  CHECK_FALSE(here.vendor.empty());
  CHECK_FALSE(here.kernel.empty());
}

}  // namespace us::pmu
