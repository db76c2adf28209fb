// A scratch folder, and a thread-safe place for what backends' threads deliver.
#pragma once

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <optional>
#include <stdlib.h>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/result.h"

namespace us::hv::testing {

class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "us-world-XXXXXX").string();
    US_CHECK(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  std::string file(const std::string& name) const { return (path_ / name).string(); }
  std::string file_of(const std::string& name, const Bytes& content) const {
    std::ofstream(file(name), std::ios::binary)
        .write(reinterpret_cast<const char*>(content.data()),
               static_cast<std::streamsize>(content.size()));
    return file(name);
  }

 private:
  std::filesystem::path path_;
};

// Collects; a test waits for what it needs. The long limit only ends a test that has failed.
template <class T>
class Mailbox {
 public:
  void put(T item) {
    const std::lock_guard lock(mutex_);
    items_.push_back(std::move(item));
    changed_.notify_all();
  }
  // The first item that `matches` says true of, taken out.
  template <class Matches>
  std::optional<T> take(Matches matches) {
    std::unique_lock lock(mutex_);
    std::optional<T> found;
    changed_.wait_for(lock, std::chrono::seconds(20), [&] {
      for (auto item = items_.begin(); item != items_.end(); ++item)
        if (matches(*item)) {
          found = std::move(*item);
          items_.erase(item);
          return true;
        }
      return false;
    });
    return found;
  }
  std::optional<T> take() {
    return take([](const T&) { return true; });
  }
  size_t size() const {
    const std::lock_guard lock(mutex_);
    return items_.size();
  }
  std::vector<T> items() const {
    const std::lock_guard lock(mutex_);
    return items_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<T> items_;
};

// The error's id, or "ok".
template <class T>
std::string outcome(const Result<T>& result) {
  return result.ok() ? "ok" : result.error().id;
}

}  // namespace us::hv::testing
