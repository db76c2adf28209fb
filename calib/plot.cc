#include "calib/plot.h"

#include <fmt/format.h>

namespace us::calib {
namespace {

constexpr double kWidth = 1320, kHeight = 470;
constexpr double kTop = 118, kPlotHeight = 278;

std::string caption(const Calibration& c, const pmu::HostProfile& p) {
  return fmt::format("{} \u00b7 event {} \u00b7 {} alarms \u00b7 margin {} branches \u00b7 {}",
                     p.host.cpu.empty() ? "unknown processor" : p.host.cpu, p.event,
                     number_text(static_cast<double>(c.skid.samples())),
                     number_text(static_cast<double>(p.margin)), p.date);
}

}  // namespace

void draw_axes(Svg& svg, const Frame& f, const Axis& x, const Axis& y) {
  constexpr Stroke kGrid{.colour = "#e3e3e3", .width = 0.8};
  constexpr Stroke kAxis{.colour = "#333333", .width = 1.1};
  for (const double v : y.scale.ticks(6)) {
    const double at = y.scale.place(v);
    svg.line({f.left, at}, {f.right(), at}, kGrid);
    svg.line({f.left - 5, at}, {f.left, at}, kAxis);
    svg.text({f.left - 8, at + 4}, y.log ? power_text(v) : number_text(v), {.align = Align::kEnd});
  }
  for (const double v : x.scale.ticks(5)) {
    const double at = x.scale.place(v);
    svg.line({at, f.top}, {at, f.bottom()}, kGrid);
    svg.line({at, f.bottom()}, {at, f.bottom() + 5}, kAxis);
    svg.text({at, f.bottom() + 19}, x.log ? power_text(v) : number_text(v),
             {.align = Align::kMiddle});
  }
  for (const double v : x.scale.minor_ticks())
    svg.line({x.scale.place(v), f.bottom()}, {x.scale.place(v), f.bottom() + 3}, kAxis);
  for (const double v : y.scale.minor_ticks())
    svg.line({f.left - 3, y.scale.place(v)}, {f.left, y.scale.place(v)}, kAxis);
  svg.line({f.left, f.top}, {f.left, f.bottom()}, kAxis);
  svg.line({f.left, f.bottom()}, {f.right(), f.bottom()}, kAxis);
  svg.text({f.left + f.width / 2, f.bottom() + 40}, x.label, {.size = 13, .align = Align::kMiddle});
  if (!y.label.empty())
    svg.text({f.left - 48, f.top + f.height / 2}, y.label,
             {.size = 13, .align = Align::kMiddle, .turned = -90});
}

void draw_title(Svg& svg, const Frame& f, std::string_view letter, std::string_view title) {
  svg.text({f.left - 52, 56}, fmt::format("{}  {}", letter, title), {.size = 15, .bold = true});
}

void draw_legend(Svg& svg, const Frame& f, const std::vector<LegendEntry>& entries) {
  constexpr double kColumn = 178, kRow = 18;
  for (size_t i = 0; i < entries.size(); ++i) {
    const LegendEntry& entry = entries[i];
    const double x = f.left - 52 + kColumn * static_cast<double>(i % 2);
    const double y = 76 + kRow * static_cast<double>(i / 2);
    switch (entry.kind) {
      case MarkKind::kLine: svg.line({x, y}, {x + 26, y}, entry.stroke); break;
      case MarkKind::kDot: svg.dot({x + 13, y}, 4, entry.stroke.colour, entry.stroke.colour); break;
      case MarkKind::kRing: svg.dot({x + 13, y}, 4, "#ffffff", entry.stroke.colour); break;
      case MarkKind::kArea: svg.box({x, y - 6}, 26, 12, entry.stroke.colour, 0.55); break;
    }
    svg.text({x + 33, y + 4}, entry.text);
  }
}

std::string plot(const Calibration& c, const Measurements& measured,
                 const pmu::HostProfile& profile) {
  Svg svg(kWidth, kHeight, "understudy calibrate: skid, exactness and landing cost");
  svg.text({kWidth / 2, 24}, caption(c, profile), {.size = 13, .align = Align::kMiddle});
  plot_skid(svg, {74, kTop, 350, kPlotHeight}, c);
  plot_exactness(svg, {590, kTop, 262, kPlotHeight}, measured);
  plot_cost(svg, {950, kTop, 350, kPlotHeight}, c, measured);
  return svg.finish();
}

}  // namespace us::calib
