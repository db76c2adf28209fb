// The three charts of a calibration, side by side in one SVG: skid with margin and tail, exactness,
// and what a landing costs.
#pragma once

#include <string>

#include "calib/calibration.h"
#include "calib/svg.h"

namespace us::calib {

std::string plot(const Calibration& calibration, const Measurements& measured,
                 const pmu::HostProfile& profile);

// One chart's place on the page; axes are drawn before what they measure.
struct Frame {
  double left, top, width, height;  // of the data's area
  double right() const { return left + width; }
  double bottom() const { return top + height; }
};

struct Axis {
  Scale scale;
  bool log;
  std::string label;  // with its unit
};

enum class MarkKind : uint8_t { kLine, kDot, kRing, kArea };
struct LegendEntry {
  MarkKind kind;
  Stroke stroke;
  std::string text;
};

inline constexpr Stroke kDataStroke{.colour = "#0072b2", .width = 1.8};
inline constexpr Stroke kFitStroke{.colour = "#d55e00", .width = 1.8, .dash = "6 3"};
inline constexpr Stroke kMarginStroke{.colour = "#00795a", .width = 1.8};
inline constexpr Stroke kWantedStroke{.colour = "#777777", .width = 1.2, .dash = "2 3"};
inline constexpr std::string_view kUnsafeFill = "#c9c9c9";

void draw_axes(Svg& svg, const Frame& frame, const Axis& x, const Axis& y);
void draw_title(Svg& svg, const Frame& frame, std::string_view letter, std::string_view title);
// Above the data, in rows of two, so that nothing is ever under it.
void draw_legend(Svg& svg, const Frame& frame, const std::vector<LegendEntry>& entries);

void plot_skid(Svg& svg, const Frame& frame, const Calibration& calibration);
void plot_exactness(Svg& svg, const Frame& frame, const Measurements& measured);
void plot_cost(Svg& svg, const Frame& frame, const Calibration& calibration,
               const Measurements& measured);

}  // namespace us::calib
