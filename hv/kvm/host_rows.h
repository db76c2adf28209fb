// The rows of hostcheck that look rather than run: processor, kernel, what else is at work on the
// host. host_check.cc has those that try a guest.
#pragma once

#include <set>

#include "hv/kvm/host_check.h"

namespace us::hv::kvm {

class Rows {
 public:
  void add(HostRow row) { rows_.push_back(std::move(row)); }
  void pass(std::string id, std::string seen, std::string needed) {
    add({std::move(id), RowStatus::kPass, std::move(seen), std::move(needed), {}});
  }
  void warn(std::string id, std::string seen, std::string needed, std::string mend) {
    add({std::move(id), RowStatus::kWarn, std::move(seen), std::move(needed), std::move(mend)});
  }
  void fail(std::string id, std::string seen, std::string needed, std::string mend) {
    add({std::move(id), RowStatus::kFail, std::move(seen), std::move(needed), std::move(mend)});
  }
  void judge(std::string id, bool good, std::string seen, std::string needed, std::string mend) {
    if (good) return pass(std::move(id), std::move(seen), std::move(needed));
    fail(std::move(id), std::move(seen), std::move(needed), std::move(mend));
  }
  // Could not be found out; modes that need it are not promised.
  void skipped(std::string id, std::string why, std::string needed) {
    unknown_.insert(id);
    warn(std::move(id), std::move(why), std::move(needed), {});
  }

  bool failed(std::string_view id) const;
  bool unknown(std::string_view id) const { return unknown_.count(std::string(id)) != 0; }
  std::vector<HostRow> take() { return std::move(rows_); }

 private:
  std::vector<HostRow> rows_;
  std::set<std::string> unknown_;
};

// The CPUID table of our guests.
std::vector<kvm_cpuid_entry2> guest_cpuid();

void check_patches(const Host& host, Rows& rows);
void check_processor(const Host& host, Rows& rows);
void check_counter_settings(const Host& host, Rows& rows);
void check_quiet(const Host& host, Rows& rows);
void check_trace(const Host& host, Rows& rows, const HostCheckOptions& options);

}  // namespace us::hv::kvm
