// A folder that goes with its test, and file calls that fail, hang or are a process's last.
#pragma once

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <sstream>
#include <string>

#include "base/check.h"
#include "replay-engine/arbiter/arbiter.h"
#include "replay-engine/arbiter/file_calls.h"

namespace us::replay::testing {

class TestFolder {
 public:
  TestFolder() : TestFolder(std::filesystem::temp_directory_path()) {}
  explicit TestFolder(const std::filesystem::path& parent) {
    std::string name = (parent / "us-arbiter-XXXXXX").string();
    US_CHECK(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TestFolder() { std::filesystem::remove_all(path_); }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }
  size_t files() const {
    size_t n = 0;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) n += entry.exists();
    return n;
  }

 private:
  std::string path_;
};

inline std::string contents(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}
inline void put(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::trunc) << text;
}

inline ArbiterOptions node(const std::string& name, const std::string& vm = "web1") {
  return {.node = name, .vm_name = vm};
}

struct Crash {};  // thrown where a process would have died

// The `at`-th call (from 1) does not work as it should; 0: all do.
class FaultyCalls final : public FileCalls {
 public:
  enum class Fault {
    kFails,          // EIO, nothing happened
    kFailsAfter,     // EIO, but it has happened
    kCrashesBefore,  // the process dies
    kCrashesAfter,
  };
  FaultyCalls(Fault fault, unsigned at) : fault_(fault), at_(at) {}
  unsigned calls() const { return count_; }

  int create(const std::string& path, int& fd) override {
    return faulty([&] { return real_->create(path, fd); });
  }
  int write(int fd, const std::string& bytes) override {
    // A write can be cut anywhere.
    if (count_ + 1 == at_ && fault_ == Fault::kCrashesAfter)
      real_->write(fd, bytes.substr(0, bytes.size() / 2));
    return faulty([&] { return real_->write(fd, bytes); });
  }
  int sync(int fd) override {
    return faulty([&] { return real_->sync(fd); });
  }
  void close(int fd) override { real_->close(fd); }
  int link(const std::string& from, const std::string& to) override {
    return faulty([&] { return real_->link(from, to); });
  }
  int unlink(const std::string& path) override {
    return faulty([&] { return real_->unlink(path); });
  }
  int read(const std::string& path, size_t bytes_max, std::string& out) override {
    return faulty([&] { return real_->read(path, bytes_max, out); });
  }
  int list(const std::string& folder, const std::string& prefix,
           std::vector<std::string>& out) override {
    return faulty([&] { return real_->list(folder, prefix, out); });
  }
  int sync_folder(const std::string& folder) override {
    return faulty([&] { return real_->sync_folder(folder); });
  }

 private:
  template <class Call>
  int faulty(Call call) {
    if (++count_ != at_) return call();
    if (fault_ == Fault::kFails) return EIO;
    if (fault_ == Fault::kCrashesBefore) throw Crash{};
    call();
    if (fault_ == Fault::kCrashesAfter) throw Crash{};
    return EIO;
  }

  const std::shared_ptr<FileCalls> real_ = real_file_calls();
  const Fault fault_;
  const unsigned at_;
  unsigned count_ = 0;
};

// Storage whose links hang while it is told to.
class HangingCalls final : public FileCalls {
 public:
  void hang() { set(true); }
  void go_on() { set(false); }

  int create(const std::string& path, int& fd) override { return real_->create(path, fd); }
  int write(int fd, const std::string& bytes) override { return real_->write(fd, bytes); }
  int sync(int fd) override { return real_->sync(fd); }
  void close(int fd) override { real_->close(fd); }
  int link(const std::string& from, const std::string& to) override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !hangs_; });
    return real_->link(from, to);
  }
  int unlink(const std::string& path) override { return real_->unlink(path); }
  int read(const std::string& path, size_t bytes_max, std::string& out) override {
    return real_->read(path, bytes_max, out);
  }
  int list(const std::string& folder, const std::string& prefix,
           std::vector<std::string>& out) override {
    return real_->list(folder, prefix, out);
  }
  int sync_folder(const std::string& folder) override { return real_->sync_folder(folder); }

 private:
  void set(bool hangs) {
    {
      const std::lock_guard lock(mutex_);
      hangs_ = hangs;
    }
    changed_.notify_all();
  }
  const std::shared_ptr<FileCalls> real_ = real_file_calls();
  std::mutex mutex_;
  std::condition_variable changed_;
  bool hangs_ = false;
};

}  // namespace us::replay::testing
