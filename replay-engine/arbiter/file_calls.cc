#include "replay-engine/arbiter/file_calls.h"

#include <cerrno>
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/file_io.h"

namespace us::replay {
namespace {

class RealFileCalls final : public FileCalls {
 public:
  int create(const std::string& path, int& fd) override {
    fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    return fd < 0 ? errno : 0;
  }

  int write(int fd, const std::string& bytes) override {
    size_t written = 0;
    return write_all(fd, {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, written);
  }

  int sync(int fd) override { return ::fsync(fd) == 0 ? 0 : errno; }
  void close(int fd) override { ::close(fd); }
  int link(const std::string& from, const std::string& to) override {
    return ::link(from.c_str(), to.c_str()) == 0 ? 0 : errno;
  }
  int unlink(const std::string& path) override { return ::unlink(path.c_str()) == 0 ? 0 : errno; }

  int read(const std::string& path, size_t bytes_max, std::string& out) override {
    // Opened anew each time: NFS looks at the server's file then, not at its cache.
    const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return errno;
    out.resize(bytes_max);
    size_t done = 0;
    int error = 0;
    while (done < bytes_max) {
      const ssize_t n = ::read(fd, out.data() + done, bytes_max - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) error = errno;
      if (n <= 0) break;
      done += static_cast<size_t>(n);
    }
    ::close(fd);
    out.resize(done);
    return error;
  }

  int list(const std::string& folder, const std::string& prefix,
           std::vector<std::string>& out) override {
    out.clear();
    DIR* dir = ::opendir(folder.c_str());
    if (dir == nullptr) return errno;
    int error = 0;
    for (size_t seen = 0;; ++seen) {
      errno = 0;
      const dirent* entry = ::readdir(dir);
      if (entry == nullptr) {
        error = errno;
        break;
      }
      if (seen >= kFolderMax) {
        error = E2BIG;
        break;
      }
      const std::string name = entry->d_name;
      if (name.starts_with(prefix)) out.push_back(name);
    }
    ::closedir(dir);
    return error;
  }

  int sync_folder(const std::string& folder) override {
    const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return errno;
    const int error = ::fsync(fd) == 0 ? 0 : errno;
    ::close(fd);
    // Some network file systems have no fsync of a folder: there a link is as safe as it gets.
    return error == EINVAL || error == ENOTSUP ? 0 : error;
  }
};

}  // namespace

std::shared_ptr<FileCalls> real_file_calls() { return std::make_shared<RealFileCalls>(); }

}  // namespace us::replay
