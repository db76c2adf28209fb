#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "calib/plot.h"

namespace us::calib {
namespace {

// Left of the log axis is a place of its own for 0, which is what is hoped for.
constexpr double kZeroWidth = 58;
constexpr double kLeast = 1e-3, kMost = 1e6;  // branches per million

double per_million(uint64_t part, const CountTally& tally) {
  return tally.branches == 0
             ? 0
             : static_cast<double>(part) * 1e6 / static_cast<double>(tally.branches);
}

}  // namespace

void plot_exactness(Svg& svg, const Frame& f, const Measurements& measured) {
  const Frame right{f.left + kZeroWidth, f.top, f.width - kZeroWidth, f.height};
  const Axis x{{Scale::kLog, kLeast, kMost, right.left, right.right()}, true, ""};
  const Axis none{{Scale::kLinear, 0, 1, f.bottom(), f.top}, false, ""};
  svg.text({f.left - 128, 56}, "b  Exactness of the clock", {.size = 15, .bold = true});
  constexpr Stroke kGrid{.colour = "#e3e3e3", .width = 0.8};
  constexpr Stroke kAxis{.colour = "#333333", .width = 1.1};
  for (const double v : x.scale.ticks(5)) {
    svg.line({x.scale.place(v), f.top}, {x.scale.place(v), f.bottom()}, kGrid);
    svg.line({x.scale.place(v), f.bottom()}, {x.scale.place(v), f.bottom() + 5}, kAxis);
    svg.text({x.scale.place(v), f.bottom() + 19}, power_text(v), {.align = Align::kMiddle});
  }
  const double zero = f.left + kZeroWidth / 2;
  svg.box({f.left, f.top}, kZeroWidth - 22, f.height, "#e4f2ec");
  svg.text({zero - 11, f.bottom() + 19}, "0", {.align = Align::kMiddle, .bold = true});
  svg.line({f.left, f.bottom()}, {f.left + kZeroWidth - 22, f.bottom()}, kAxis);
  svg.line({right.left, f.bottom()}, {f.right(), f.bottom()}, kAxis);
  svg.text({f.left + f.width / 2, f.bottom() + 40}, "miscounted, per million branches",
           {.size = 13, .align = Align::kMiddle});
  const double rows = static_cast<double>(std::max<size_t>(measured.counts.size(), 1));
  double row = 0.5;
  for (const auto& [probe, tally] : measured.counts) {
    const double y = f.top + f.height * row / rows;
    row += 1;
    svg.line({f.left, y}, {f.right(), y}, kGrid);
    svg.text({f.left - 10, y + 4}, probe, {.align = Align::kEnd});
    if (tally.exact()) svg.dot({zero - 11, y}, 4.5, kMarginStroke.colour, kMarginStroke.colour);
    if (tally.over != 0)
      svg.dot({x.scale.place(per_million(tally.over, tally)), y}, 4.5, kFitStroke.colour,
              kFitStroke.colour);
    if (tally.under != 0)
      svg.dot({x.scale.place(per_million(tally.under, tally)), y}, 4.5, "#ffffff",
              kFitStroke.colour);
  }
  const Frame legend{f.left - 76, f.top, f.width, f.height};
  draw_legend(svg, legend,
              {{MarkKind::kDot, kMarginStroke, "exact"},
               {MarkKind::kDot, kFitStroke, "too many"},
               {MarkKind::kRing, kFitStroke, "too few"}});
}

}  // namespace us::calib
