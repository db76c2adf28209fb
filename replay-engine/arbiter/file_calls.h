// The file system calls that the file arbiter makes, one virtual function each, so that tests can
// let every single one fail, hang or be the last one before a crash.
#pragma once

#include <memory>
#include <string>
#include <vector>

namespace us::replay {

// Each returns 0 or an errno.
class FileCalls {
 public:
  virtual ~FileCalls() = default;
  virtual int create(const std::string& path, int& fd) = 0;  // new, for writing
  virtual int write(int fd, const std::string& bytes) = 0;   // all of them
  virtual int sync(int fd) = 0;
  virtual void close(int fd) = 0;
  virtual int link(const std::string& from, const std::string& to) = 0;
  virtual int unlink(const std::string& path) = 0;
  virtual int read(const std::string& path, size_t bytes_max, std::string& out) = 0;
  // Names in a folder that begin with `prefix`. E2BIG: more than kFolderMax are there.
  virtual int list(const std::string& folder, const std::string& prefix,
                   std::vector<std::string>& out) = 0;
  virtual int sync_folder(const std::string& folder) = 0;

  static constexpr size_t kFolderMax = 1'000'000;
};

std::shared_ptr<FileCalls> real_file_calls();

}  // namespace us::replay
