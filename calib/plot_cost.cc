#include <algorithm>
#include <cmath>

#include "calib/plot.h"

namespace us::calib {
namespace {

constexpr double kMicrosecond = 1000;  // nanoseconds

double cost_us(const Calibration& c, double margin) {
  return expected_cost_ns(static_cast<uint64_t>(margin), c.skid, c.tail, c.costs, c.rate) /
         kMicrosecond;
}

struct Range {
  double least, most;
};

// Decades that hold every cost to be drawn.
Range costs_drawn(const Calibration& c, const Measurements& measured, double right) {
  Range range{1e300, 0};
  const auto take = [&range](double v) {
    range = {std::min(range.least, v), std::max(range.most, v)};
  };
  for (int i = 0; i <= 150; ++i) take(cost_us(c, std::floor(right * i / 150)));
  for (const auto& [margin, tally] : measured.landings)
    if (tally.landings != 0 && static_cast<double>(margin) <= right)
      take(measured_cost_ns(tally, c.costs) / kMicrosecond);
  return {std::pow(10, std::floor(std::log10(std::max(range.least, 1e-3)))),
          std::pow(10, std::ceil(std::log10(std::max(range.most, 1e-2)) + 1e-9))};
}

}  // namespace

void plot_cost(Svg& svg, const Frame& f, const Calibration& c, const Measurements& measured) {
  const double right = std::max(static_cast<double>(c.choice.margin) * 3.1, 16.0);
  const auto [least, most] = costs_drawn(c, measured, right);
  const Axis x{{Scale::kLinear, 0, right, f.left, f.right()}, false, "margin, branches"};
  const Axis y{{Scale::kLog, least, most, f.bottom(), f.top}, true, "cost of one landing, \u00b5s"};
  draw_title(svg, f, "c", "Cost of a landing");
  const double unsafe = x.scale.place(static_cast<double>(c.choice.reach.high));
  svg.box({f.left, f.top}, std::max(unsafe - f.left, 0.0), f.height, kUnsafeFill, 0.4);
  draw_axes(svg, f, x, y);
  std::vector<Point> line;
  double before = -1;
  for (int i = 0; i <= 700; ++i) {
    const double margin = std::floor(right * i / 700);
    if (margin == before) continue;
    before = margin;
    line.push_back({x.scale.place(margin), y.scale.place(cost_us(c, margin))});
  }
  svg.path(line, kDataStroke);
  const double margin = x.scale.place(static_cast<double>(c.choice.margin));
  svg.line({margin, f.top}, {margin, f.bottom()}, kMarginStroke);
  bool landed = false;
  for (const auto& [at, tally] : measured.landings) {
    if (tally.landings == 0 || static_cast<double>(at) > right) continue;
    landed = true;
    svg.dot({x.scale.place(static_cast<double>(at)),
             y.scale.place(measured_cost_ns(tally, c.costs) / kMicrosecond)},
            4, "#ffffff", kFitStroke.colour);
  }
  std::vector<LegendEntry> legend{{MarkKind::kLine, kDataStroke, "expected"},
                                  {MarkKind::kLine, kMarginStroke, "margin chosen"}};
  if (landed) legend.push_back({MarkKind::kRing, kFitStroke, "the engine's landings"});
  legend.push_back({MarkKind::kArea, {.colour = kUnsafeFill}, "overshoots too often"});
  draw_legend(svg, f, legend);
}

}  // namespace us::calib
