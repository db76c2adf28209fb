// A file that appears whole or not at all: written as a draft beside its target, which it replaces
// by rename(2) once all of it is there.
#pragma once

#include <filesystem>
#include <string_view>
#include <sys/types.h>

#include "base/bytes.h"

namespace us {

struct DraftOptions {
  mode_t mode = 0666;    // of the file; the umask takes from it
  bool durable = false;  // the content is on disk before it gets its name
};

// The first error is kept, and all that follows does nothing: who writes may look once, at the end.
class DraftFile {
 public:
  // Makes the draft, under a name that no other writer of the same target has.
  explicit DraftFile(std::filesystem::path target, const DraftOptions& options = {});
  // Without commit() the target is as it was, and the draft is removed.
  ~DraftFile();
  DraftFile(const DraftFile&) = delete;
  DraftFile& operator=(const DraftFile&) = delete;

  // True as long as nothing failed.
  bool write(ByteSpan bytes);
  bool write(std::string_view text);
  // The draft becomes the target. True: it did. Who needs the name durable too calls sync_folder().
  bool commit();

  int error() const { return error_; }  // errno of what failed first; 0: nothing

 private:
  void note(int error);
  void close();

  const std::filesystem::path target_;
  const std::filesystem::path draft_;
  const bool durable_;
  int fd_ = -1;
  int error_ = 0;
  bool there_ = false;  // the draft, under its own name
};

}  // namespace us
