#include "base/draft_file.h"

#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <fmt/format.h>
#include <random>
#include <unistd.h>
#include <utility>

#include "base/check.h"
#include "base/file_io.h"

namespace us {
namespace {

// Drawn, because a process number is unique on one host only, and folders are shared.
std::string draft_name(const std::filesystem::path& target) {
  return fmt::format("{}.{:08x}", target.string(), std::random_device()());
}

}  // namespace

DraftFile::DraftFile(std::filesystem::path target, const DraftOptions& options)
    : target_(std::move(target)), draft_(draft_name(target_)), durable_(options.durable) {
  fd_ = ::open(draft_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, options.mode);
  note(fd_ < 0 ? errno : 0);
  there_ = fd_ >= 0;
}

DraftFile::~DraftFile() {
  close();
  if (there_) ::unlink(draft_.c_str());
}

void DraftFile::note(int error) {
  if (error_ == 0) error_ = error;
}

// Some file systems say only here that there was no room.
void DraftFile::close() {
  if (fd_ >= 0) note(::close(fd_) == 0 ? 0 : errno);
  fd_ = -1;
}

bool DraftFile::write(ByteSpan bytes) {
  US_CHECK(fd_ >= 0 || error_ != 0, "a write to {} after its commit", target_.string());
  size_t written = 0;
  if (error_ == 0) note(write_all(fd_, bytes, written));
  return error_ == 0;
}

bool DraftFile::write(std::string_view text) {
  return write(ByteSpan(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
}

bool DraftFile::commit() {
  US_CHECK(fd_ >= 0 || error_ != 0, "a second commit of {}", target_.string());
  if (durable_ && error_ == 0) note(::fsync(fd_) == 0 ? 0 : errno);
  close();
  if (error_ == 0) note(::rename(draft_.c_str(), target_.c_str()) == 0 ? 0 : errno);
  if (error_ == 0) there_ = false;
  return error_ == 0;
}

}  // namespace us
