#include "tools/kept_log.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

namespace us::tools {

Result<std::unique_ptr<KeptLog>> KeptLog::create(const std::string& folder, log::LogStream& inner) {
  std::error_code failed;
  std::filesystem::create_directories(std::filesystem::path(folder).parent_path(), failed);
  auto writer = log::LogWriter::create(folder);
  if (!writer.ok()) return writer.error();
  return std::unique_ptr<KeptLog>(new KeptLog(folder, inner, std::move(writer).value()));
}

KeptLog::~KeptLog() {
  if (kept_) return;
  writer_.reset();
  std::error_code failed;
  std::filesystem::remove_all(folder_, failed);
}

Result<std::optional<log::Record>> KeptLog::next() {
  auto record = inner_.next();
  if (!record.ok() || !record->has_value()) return record;
  writer_->append(**record);
  if (!std::holds_alternative<log::Section>((*record)->body)) last_ = (*record)->at;
  return record;
}

Status KeptLog::keep(const std::string& why) {
  kept_ = true;
  writer_->append(
      {.at = last_,
       .body = log::Marker{log::MarkerKind::kNote, 0, why.substr(0, log::kTextBytesMax)}});
  return writer_->close();
}

bool StateReader::read(std::span<uint8_t> out) {
  while (!out.empty()) {
    if (at_ == current_.size() && !advance()) return false;
    const size_t n = std::min(out.size(), current_.size() - at_);
    std::memcpy(out.data(), current_.data() + at_, n);
    at_ += n;
    out = out.subspan(n);
  }
  return true;
}

bool StateReader::advance() {
  for (;;) {
    if (!next_) {
      auto record = log_.next();
      if (!record.ok() || !record->has_value()) return false;
      next_ = std::move(**record);
    }
    auto* section = std::get_if<log::Section>(&next_->body);
    if (section == nullptr || section->name != "snapshot") return false;
    current_ = std::move(section->data);
    at_ = 0;
    next_.reset();
    if (!current_.empty()) return true;
  }
}

}  // namespace us::tools
