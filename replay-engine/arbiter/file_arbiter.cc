#include "replay-engine/arbiter/file_arbiter.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <random>
#include <unistd.h>

#include "replay-engine/arbiter/claim_record.h"

namespace us::replay {
namespace {

constexpr const char* kReleased = ".released";

// What storage said, for messages.
template <class T>
using Found = Result<T, std::string>;

struct Latest {
  uint64_t generation = 0;
  bool released = false;
};

class FileArbiter final : public Arbiter {
 public:
  FileArbiter(const std::string& path, const ArbiterOptions& options,
              std::shared_ptr<FileCalls> calls)
      : path_(path), me_(options), calls_(std::move(calls)) {
    const size_t slash = path.rfind('/');
    folder_ = slash == std::string::npos ? "." : path.substr(0, std::max<size_t>(slash, 1));
    base_ = slash == std::string::npos ? path : path.substr(slash + 1);
  }

  Claim claim(uint64_t generation) override;
  Result<ArbiterState> look() override;
  Status release(uint64_t generation) override;
  std::string text() const override { return "file:" + path_; }

 private:
  std::string file_of(uint64_t generation) const { return fmt::format("{}.{}", path_, generation); }
  Found<Latest> latest() const;
  Found<ClaimRecord> record_of(uint64_t generation) const;
  int place(const std::string& name, uint64_t generation, std::string& what);
  std::string temporary_name();

  const std::string path_;
  const ArbiterOptions me_;
  const std::shared_ptr<FileCalls> calls_;
  std::string folder_, base_;
};

std::string said(const std::string& what, int error) { return what + ": " + std::strerror(error); }

// --- Reading

Found<Latest> FileArbiter::latest() const {
  std::vector<std::string> names;
  const std::string prefix = base_ + ".";
  if (const int error = calls_->list(folder_, prefix, names); error != 0)
    return said("reading the folder " + folder_, error);
  Latest latest;
  for (const std::string& name : names) {
    const std::string rest = name.substr(prefix.size());
    if (rest.find_first_not_of("0123456789") != std::string::npos) continue;
    const auto generation = parse_generation(rest);
    // Nothing of ours has such a name; to pass over it could be to pass over a later claim.
    if (!generation) return folder_ + "/" + name + " is no generation's name";
    latest.generation = std::max(latest.generation, *generation);
  }
  const std::string released = fmt::format("{}{}{}", prefix, latest.generation, kReleased);
  latest.released = std::find(names.begin(), names.end(), released) != names.end();
  return latest;
}

Found<ClaimRecord> FileArbiter::record_of(uint64_t generation) const {
  std::string text;
  if (const int error = calls_->read(file_of(generation), kClaimBytesMax + 1, text); error != 0)
    return said("reading " + file_of(generation), error);
  const auto record = parse_claim(text);
  if (!record) return file_of(generation) + " is damaged, or of another version";
  if (record->vm != me_.vm_name)
    return fmt::format("{} belongs to the VM {}, not to {}", file_of(generation), record->vm,
                       me_.vm_name);
  if (record->generation != generation)
    return fmt::format("{} says generation {}", file_of(generation), record->generation);
  return *record;
}

Result<ArbiterState> FileArbiter::look() {
  const auto found = latest();
  if (!found.ok()) return unreachable_error(text(), found.error());
  if (found->generation == 0) return ArbiterState{};
  const auto record = record_of(found->generation);
  if (!record.ok()) return unreachable_error(text(), record.error());
  return ArbiterState{found->generation, record->holder, found->released};
}

// --- Writing

std::string FileArbiter::temporary_name() {
  static std::atomic<uint64_t> made{0};
  std::random_device random;
  return fmt::format("{}/.{}.{}-{}-{:08x}.new", folder_, base_, ::getpid(), ++made, random());
}

// Makes a whole file and gives it its name; EEXIST: somebody was first. `what` is the step that
// failed.
int FileArbiter::place(const std::string& name, uint64_t generation, std::string& what) {
  const std::string temporary = temporary_name();
  what = "making a file in " + folder_;
  int fd = -1;
  if (const int error = calls_->create(temporary, fd); error != 0) return error;
  what = "writing " + temporary;
  int error = calls_->write(fd, format_claim({me_.vm_name, generation, me_.node, now_as_text()}));
  if (error == 0) error = calls_->sync(fd);
  calls_->close(fd);
  if (error == 0) {
    what = "making the hard link " + name;
    error = calls_->link(temporary, name);
  }
  // One that stays behind does no harm: its name is never looked at.
  calls_->unlink(temporary);
  return error;
}

Claim FileArbiter::claim(uint64_t generation) {
  US_CHECK(generation > 0);
  if (generation > kGenerationMax) return unreachable(generation, "no generation is that high");
  auto seen = latest();
  if (!seen.ok()) return unreachable(0, seen.error());
  if (seen->generation < generation) {
    std::string what;
    const int error = place(file_of(generation), generation, what);
    if (error != 0 && error != EEXIST) return unreachable(seen->generation, said(what, error));
  } else if (seen->generation > generation) {
    const auto record = record_of(seen->generation);
    return record.ok() ? judge(*record, generation, me_)
                       : unreachable(seen->generation, record.error());
  }
  // What the file says decides, not what link() said: an NFS server's answer may have been lost and
  // the call repeated, and a claim made before a crash is found again.
  const auto record = record_of(generation);
  if (!record.ok()) return unreachable(seen->generation, record.error());
  const Claim claim = judge(*record, generation, me_);
  if (claim.verdict != ClaimVerdict::kWon) return claim;
  if (const int error = calls_->sync_folder(folder_); error != 0)
    return unreachable(generation, said("syncing the folder " + folder_, error));
  // Somebody may have made a later one between the look and the link.
  seen = latest();
  if (!seen.ok()) return unreachable(generation, seen.error());
  if (seen->generation == generation) return claim;
  const auto later = record_of(seen->generation);
  return later.ok() ? judge(*later, generation, me_) : unreachable(seen->generation, later.error());
}

Status FileArbiter::release(uint64_t generation) {
  const auto seen = latest();
  if (!seen.ok()) return unreachable_error(text(), seen.error());
  if (generation == 0 || generation > seen->generation) return Done{};
  std::string bytes;
  const int missing = calls_->read(file_of(generation), kClaimBytesMax + 1, bytes);
  if (missing == ENOENT) return Done{};
  const auto record = record_of(generation);
  if (!record.ok()) return unreachable_error(text(), record.error());
  if (record->holder != me_.node) return Done{};
  std::string what;
  int error = place(file_of(generation) + kReleased, generation, what);
  if (error == EEXIST) error = 0;
  if (error == 0) {
    what = "syncing the folder " + folder_;
    error = calls_->sync_folder(folder_);
  }
  if (error != 0) return unreachable_error(text(), said(what, error));
  return Done{};
}

}  // namespace

std::unique_ptr<Arbiter> make_file_arbiter(const std::string& path, const ArbiterOptions& options,
                                           std::shared_ptr<FileCalls> calls) {
  return std::make_unique<FileArbiter>(path, options, std::move(calls));
}

}  // namespace us::replay
