// The frozen outer header that every log file begins with, the manifest, and file names.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "base/types.h"

namespace us::log {

// Version of everything behind the outer header. The outer header itself never changes.
constexpr uint16_t kFormatVersion = 1;
// Feature bits that a reader must know (none so far) and those it may ignore (none so far).
constexpr uint64_t kRequiredFeaturesKnown = 0;
constexpr size_t kOuterHeaderBytesMin = 36;
constexpr size_t kOuterHeaderBytesMax = 4096;
constexpr size_t kSegmentHeaderBytes = 76;  // of this version
constexpr char kManifestName[] = "manifest";
constexpr uint32_t kSegmentsMax = 1'000'000;

enum class FileKind : uint16_t { kManifest = 1, kSegment = 2 };

// Ties segments to their recording; random.
using RecordingId = std::array<uint8_t, 16>;
RecordingId make_recording_id();
std::string to_hex(const RecordingId& id);

struct OuterHeader {
  FileKind kind = FileKind::kSegment;
  uint16_t version = kFormatVersion;
  uint64_t required_features = 0;
  uint64_t optional_features = 0;
  Bytes fields{};  // the kind's own
};

struct Manifest {
  RecordingId id{};
  uint64_t created_unix_seconds = 0;
  std::string created_by{};
};

struct SegmentHeader {
  RecordingId id{};
  uint32_t number = 0;
  uint64_t first_sequence = 0;
  LogPosition first_position{};
};

Bytes encode_outer_header(const OuterHeader& header);

// Why a file's beginning is no header of ours.
enum class HeaderError : uint8_t {
  kTooShort,
  kBadMagic,
  kBadLength,
  kBadCrc,
  kForeignVersion,
  kUnknownFeatures,
  kWrongKind,
  kBadFields,
};
// Parses the header at the start of `bytes`, which may be longer; `consumed` says how long it is.
Result<OuterHeader, HeaderError> decode_outer_header(ByteSpan bytes, FileKind kind,
                                                     size_t& consumed);
// What decode_outer_header refused, as a user reads it.
UserError header_error(HeaderError error, const std::filesystem::path& file, ByteSpan bytes);

Bytes encode_manifest(const Manifest& manifest);
Result<Manifest, HeaderError> decode_manifest(ByteSpan bytes);
Bytes encode_segment_header(const SegmentHeader& header);
Result<SegmentHeader, HeaderError> decode_segment_header(ByteSpan bytes, size_t& consumed);

// "000042.uslog"
std::string segment_name(uint32_t number);
// How many segments the folder holds, from 0 without a gap. LOG-005 names a missing one.
Result<uint32_t> count_segments(const std::filesystem::path& folder);

}  // namespace us::log
