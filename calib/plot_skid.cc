#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "calib/plot.h"

namespace us::calib {
namespace {

double real(uint64_t n) { return static_cast<double>(n); }

// Far right of the axis: past the margin, and past all that was seen where that is not far off.
double rightmost(const Calibration& c) {
  return std::max({real(c.choice.margin) * 1.12,
                   std::min(real(c.tail.largest), 3 * real(c.choice.margin)), 10.0});
}

// P(skid >= x) of the samples, a step down after each value.
std::vector<Point> measured_line(const Calibration& c, const Scale& x, const Scale& y) {
  std::vector<Point> line;
  double left = real(c.skid.samples());
  double level = y.place(1);
  line.push_back({x.place(x.least()), level});
  for (const auto& [value, times] : c.skid.counts()) {
    const double at = x.place(real(value) + (x.least() > 0 && value == 0 ? x.least() : 0));
    line.push_back({at, level});
    left -= real(times);
    if (left <= 0) {
      line.push_back({at, y.place(y.least())});
      break;
    }
    level = y.place(left / real(c.skid.samples()));
    line.push_back({at, level});
  }
  return line;
}

std::vector<Point> fitted_line(const Calibration& c, const Scale& x, const Scale& y) {
  std::vector<Point> line;
  if (c.tail.kind != TailKind::kFitted) return line;
  const double from = std::max(real(c.tail.threshold), x.least());
  for (int i = 0; i <= 200; ++i) {
    const double part = i / 200.0;
    const double v =
        x.least() > 0 ? from * std::pow(x.most() / from, part) : from + (x.most() - from) * part;
    // The distribution is one of whole numbers: between them the fit is drawn through the middle.
    const double chance = c.tail.exceedance(c.skid, v);
    if (chance < y.least()) break;
    line.push_back({x.place(v), y.place(chance)});
  }
  return line;
}

}  // namespace

void plot_skid(Svg& svg, const Frame& f, const Calibration& c) {
  const double wanted = c.choice.overshoot_probability;
  const double floor =
      std::pow(10, std::floor(std::log10(std::min(wanted, 1 / real(c.skid.samples())))) - 1);
  const double right = rightmost(c);
  const bool wide = right > 100 * (real(c.p50.estimate) + 1);
  const Axis x{{wide ? Scale::kLog : Scale::kLinear, wide ? 1.0 : 0.0, right, f.left, f.right()},
               wide,
               "skid x: branches from aim to interrupt"};
  const Axis y{
      {Scale::kLog, floor, 1, f.bottom(), f.top}, true, "share of alarms with skid \u2265 x"};
  draw_title(svg, f, "a", "Skid of the alarm");
  draw_axes(svg, f, x, y);
  svg.line({f.left, y.scale.place(wanted)}, {f.right(), y.scale.place(wanted)}, kWantedStroke);
  const double margin = x.scale.place(real(c.choice.margin));
  svg.line({margin, f.top}, {margin, f.bottom()}, kMarginStroke);
  svg.path(measured_line(c, x.scale, y.scale), kDataStroke);
  const auto fitted = fitted_line(c, x.scale, y.scale);
  svg.path(fitted, kFitStroke);
  const bool ceiling = c.tail.kind == TailKind::kCeiling;
  std::vector<LegendEntry> legend{
      {MarkKind::kLine, kDataStroke, c.skid_of == "all" ? "measured" : "measured: " + c.skid_of},
      {MarkKind::kLine, kMarginStroke,
       fmt::format("margin {}", number_text(real(c.choice.margin)))}};
  if (!fitted.empty())
    legend.push_back(
        {MarkKind::kLine, kFitStroke, fmt::format("tail fit, shape {:.2f}", c.tail.pareto.shape)});
  legend.push_back(
      {MarkKind::kLine, kWantedStroke, fmt::format("overshoots wanted: {:.0e}", wanted)});
  if (ceiling)
    svg.text({f.left + 8, f.bottom() - 10},
             fmt::format("skid ends at {} ({} alarms)", number_text(real(c.tail.largest)),
                         number_text(real(c.tail.at_ceiling))));
  draw_legend(svg, f, legend);
}

}  // namespace us::calib
