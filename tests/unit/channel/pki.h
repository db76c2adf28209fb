// Certificates for tests, made with OpenSSL as they are needed.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "logchannel/channel/credentials.h"

namespace us::log {

// A folder of its own, removed at the end.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  // Writes a file in it; returns its path.
  std::string write(const std::string& name, const std::string& text, unsigned mode = 0600) const;

 private:
  std::filesystem::path path_;
};

// An authority that issues certificates.
class Authority {
 public:
  explicit Authority(const std::string& name);
  ~Authority();
  Authority(const Authority&) = delete;
  Authority& operator=(const Authority&) = delete;

  // Fills a folder with cert.pem, key.pem and ca.pem. Valid for `days` from yesterday.
  void issue(const TempFolder& folder, const std::string& name, int days = 30) const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

// What load_credentials makes of a folder; fails the test when it does not load.
Credentials certificates(const TempFolder& folder);

}  // namespace us::log
