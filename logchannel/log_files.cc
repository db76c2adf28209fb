#include "logchannel/log_files.h"

#include <algorithm>
#include <fmt/format.h>
#include <optional>
#include <random>
#include <vector>

#include "base/check.h"
#include "base/crc32c.h"

namespace us::log {
namespace {

// The line ends in it show a file mangled as text.
constexpr uint8_t kMagic[8] = {'U', 'S', 'L', 'O', 'G', '\r', '\n', 0x1a};
constexpr size_t kFixedBytes = 32;  // before the kind's own fields
constexpr size_t kCreatedByBytesMax = 256;

void put_id(ByteWriter& out, const RecordingId& id) { out.put_bytes(id); }

// The number in "NNNNNN.uslog", or nothing.
std::optional<uint32_t> segment_number(const std::string& name) {
  constexpr std::string_view kSuffix = ".uslog";
  if (name.size() != 6 + kSuffix.size() || !name.ends_with(kSuffix)) return std::nullopt;
  uint32_t number = 0;
  for (char c : std::string_view(name).substr(0, 6)) {
    if (c < '0' || c > '9') return std::nullopt;
    number = number * 10 + static_cast<uint32_t>(c - '0');
  }
  return number;
}

}  // namespace

RecordingId make_recording_id() {
  std::random_device device;
  RecordingId id;
  for (uint8_t& byte : id) byte = static_cast<uint8_t>(device());
  return id;
}

std::string to_hex(const RecordingId& id) {
  std::string out;
  for (uint8_t byte : id) out += fmt::format("{:02x}", byte);
  return out;
}

Bytes encode_outer_header(const OuterHeader& header) {
  ByteWriter out;
  out.put_bytes(kMagic);
  const size_t length = kFixedBytes + header.fields.size() + 4;
  US_CHECK(length <= kOuterHeaderBytesMax, "an outer header of {} bytes", length);
  out.put(static_cast<uint32_t>(length));
  out.put(header.version);
  out.put(header.kind);
  out.put(header.required_features);
  out.put(header.optional_features);
  out.put_bytes(header.fields);
  out.put(crc32c(out.bytes()));
  return out.take();
}

Result<OuterHeader, HeaderError> decode_outer_header(ByteSpan bytes, FileKind kind,
                                                     size_t& consumed) {
  const size_t magic_bytes = std::min(bytes.size(), sizeof kMagic);
  if (!std::equal(bytes.begin(), bytes.begin() + magic_bytes, kMagic)) {
    return HeaderError::kBadMagic;
  }
  if (bytes.size() < kFixedBytes) return HeaderError::kTooShort;
  ByteReader in(bytes.subspan(sizeof kMagic));
  const uint32_t length = in.get<uint32_t>();
  if (length < kOuterHeaderBytesMin || length > kOuterHeaderBytesMax) {
    return HeaderError::kBadLength;
  }
  if (length > bytes.size()) return HeaderError::kTooShort;
  ByteReader tail(bytes.subspan(length - 4));
  if (tail.get<uint32_t>() != crc32c(bytes.subspan(0, length - 4))) return HeaderError::kBadCrc;
  OuterHeader header;
  header.version = in.get<uint16_t>();
  header.kind = in.get<FileKind>();
  header.required_features = in.get<uint64_t>();
  header.optional_features = in.get<uint64_t>();
  if (header.version != kFormatVersion) return HeaderError::kForeignVersion;
  if ((header.required_features & ~kRequiredFeaturesKnown) != 0) {
    return HeaderError::kUnknownFeatures;
  }
  if (header.kind != kind) return HeaderError::kWrongKind;
  const ByteSpan fields = bytes.subspan(kFixedBytes, length - 4 - kFixedBytes);
  header.fields.assign(fields.begin(), fields.end());
  consumed = length;
  return header;
}

UserError header_error(HeaderError error, const std::filesystem::path& file, ByteSpan bytes) {
  UserError out{"LOG-004",
                ExitCode::kLogUnreadable,
                fmt::format("cannot read {}", file.string()),
                "",
                "",
                "restore the file from an intact copy of the recording"};
  switch (error) {
    case HeaderError::kTooShort:
      out.seen = fmt::format("a file header cut off after {} bytes", bytes.size());
      out.needed = "the whole header";
      break;
    case HeaderError::kBadMagic:
      out.id = "LOG-002";
      out.seen = "a file that does not begin with the magic USLOG";
      out.needed = "a recording made by `understudy record`";
      out.mend = "name the recording's directory";
      break;
    case HeaderError::kBadLength:
      out.id = "LOG-009";
      out.seen = "a header length out of bounds";
      out.needed = fmt::format("{} to {} bytes", kOuterHeaderBytesMin, kOuterHeaderBytesMax);
      break;
    case HeaderError::kBadCrc:
      out.seen = "a header whose checksum does not match";
      out.needed = "an undamaged header";
      break;
    case HeaderError::kForeignVersion: {
      ByteReader in(bytes.subspan(12));
      out.id = "LOG-003";
      out.seen = fmt::format("log format version {}", in.get<uint16_t>());
      out.needed = fmt::format("version {}", kFormatVersion);
      out.mend = "use the release of understudy that made the recording";
      break;
    }
    case HeaderError::kUnknownFeatures: {
      ByteReader in(bytes.subspan(16));
      out.id = "LOG-003";
      out.seen = fmt::format("required features {:#x}", in.get<uint64_t>());
      out.needed = fmt::format("no features beyond {:#x}", kRequiredFeaturesKnown);
      out.mend = "use the release of understudy that made the recording";
      break;
    }
    case HeaderError::kWrongKind:
      out.seen = "a log file of another kind (a manifest where a segment belongs, or the reverse)";
      out.needed = "the file that belongs under this name";
      break;
    case HeaderError::kBadFields:
      out.seen = "header fields that do not parse";
      out.needed = "an undamaged header";
      break;
  }
  return out;
}

Bytes encode_manifest(const Manifest& manifest) {
  ByteWriter fields;
  put_id(fields, manifest.id);
  fields.put(manifest.created_unix_seconds);
  fields.put_string(std::string_view(manifest.created_by).substr(0, kCreatedByBytesMax));
  return encode_outer_header({.kind = FileKind::kManifest, .fields = fields.take()});
}

Result<Manifest, HeaderError> decode_manifest(ByteSpan bytes) {
  size_t consumed = 0;
  auto header = decode_outer_header(bytes, FileKind::kManifest, consumed);
  if (!header) return header.error();
  if (consumed != bytes.size()) return HeaderError::kBadFields;
  ByteReader in(header->fields);
  Manifest manifest;
  in.get_into(manifest.id);
  manifest.created_unix_seconds = in.get<uint64_t>();
  manifest.created_by = in.get_string();
  if (in.failed() || manifest.created_by.size() > kCreatedByBytesMax) {
    return HeaderError::kBadFields;
  }
  return manifest;
}

Bytes encode_segment_header(const SegmentHeader& header) {
  ByteWriter fields;
  put_id(fields, header.id);
  fields.put(header.number);
  fields.put(uint32_t{0});
  fields.put(header.first_sequence);
  fields.put(header.first_position.value);
  Bytes bytes = encode_outer_header({.kind = FileKind::kSegment, .fields = fields.take()});
  US_CHECK(bytes.size() == kSegmentHeaderBytes, "a segment header of {} bytes", bytes.size());
  return bytes;
}

Result<SegmentHeader, HeaderError> decode_segment_header(ByteSpan bytes, size_t& consumed) {
  auto header = decode_outer_header(bytes, FileKind::kSegment, consumed);
  if (!header) return header.error();
  ByteReader in(header->fields);
  SegmentHeader segment;
  in.get_into(segment.id);
  segment.number = in.get<uint32_t>();
  in.get<uint32_t>();
  segment.first_sequence = in.get<uint64_t>();
  segment.first_position = LogPosition(in.get<uint64_t>());
  if (in.failed()) return HeaderError::kBadFields;
  return segment;
}

std::string segment_name(uint32_t number) { return fmt::format("{:06}.uslog", number); }

Result<uint32_t> count_segments(const std::filesystem::path& folder) {
  std::vector<uint32_t> numbers;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    if (auto number = segment_number(it->path().filename().string())) numbers.push_back(*number);
  }
  if (error) {
    return UserError{"LOG-001",
                     ExitCode::kLogUnreadable,
                     fmt::format("cannot list the recording {}", folder.string()),
                     error.message(),
                     "a readable directory",
                     "check the path and its permissions"};
  }
  std::sort(numbers.begin(), numbers.end());
  for (uint32_t i = 0; i < numbers.size(); ++i) {
    if (numbers[i] == i) continue;
    return UserError{
        "LOG-005",
        ExitCode::kLogUnreadable,
        fmt::format("the recording {} is not whole", folder.string()),
        fmt::format("{} is missing, {} is there", segment_name(i), segment_name(numbers.back())),
        "every segment",
        "restore the missing file from an intact copy"};
  }
  return static_cast<uint32_t>(numbers.size());
}

}  // namespace us::log
