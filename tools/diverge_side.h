// A recording as a side of a comparison: opened, its description read, ready to be executed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "replay-engine/diverge/report.h"
#include "replay-engine/diverge/side.h"
#include "tools/image_reader.h"
#include "tools/recording.h"

namespace us::tools {

struct RecordedSide {
  std::string folder;
  RecordedVm vm;
  replay::Sections sections;
  std::shared_ptr<ImageReader> images;
  replay::Side side;
};

struct SideOptions {
  std::string folder;
  std::vector<std::string> images;  // by disk; else those recorded
  std::string pmu_profile;          // else the recorded one
};

// `name` is "a" or "b". Errors: those of LogReader::open, read_opening, read_description and
// load_host_profile.
Result<RecordedSide> open_side(const std::string& name, const SideOptions& options);

// DIV-001: recordings of different machines cannot be compared; the message names what differs.
// Clock and random seed of the machine may.
Status check_comparable(const RecordedSide& a, const RecordedSide& b);

// Where and by what the two were made, and what is here.
std::vector<replay::EnvironmentRow> environment_of(const RecordedSide& a, const RecordedSide* b);

}  // namespace us::tools
