#include "calib/svg.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace us::calib {
namespace {

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string attributes(const Stroke& stroke) {
  std::string out =
      fmt::format("stroke=\"{}\" stroke-width=\"{:.2f}\"", stroke.colour, stroke.width);
  if (!stroke.dash.empty()) out += fmt::format(" stroke-dasharray=\"{}\"", stroke.dash);
  return out;
}

}  // namespace

Svg::Svg(double width, double height, std::string_view title)
    : width_(width), height_(height), title_(title) {
  box({0, 0}, width, height, "#ffffff");
}

void Svg::line(Point from, Point to, const Stroke& stroke) {
  body_ += fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n",
                       from.x, from.y, to.x, to.y, attributes(stroke));
}

void Svg::path(const std::vector<Point>& points, const Stroke& stroke) {
  if (points.size() < 2) return;
  body_ += "<polyline points=\"";
  for (const Point& p : points) body_ += fmt::format("{:.1f},{:.1f} ", p.x, p.y);
  body_ += fmt::format("\" fill=\"none\" stroke-linejoin=\"round\" {}/>\n", attributes(stroke));
}

void Svg::box(Point corner, double width, double height, std::string_view fill, double opacity) {
  body_ += fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\" "
      "fill-opacity=\"{:.2f}\"/>\n",
      corner.x, corner.y, width, height, fill, opacity);
}

void Svg::dot(Point centre, double radius, std::string_view fill, std::string_view edge) {
  body_ += fmt::format(
      "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\" fill=\"{}\" stroke=\"{}\" "
      "stroke-width=\"1.4\"/>\n",
      centre.x, centre.y, radius, fill, edge);
}

void Svg::text(Point at, std::string_view text, const TextStyle& style) {
  constexpr std::string_view kAnchors[] = {"start", "middle", "end"};
  std::string more;
  if (style.bold) more += " font-weight=\"bold\"";
  if (style.turned != 0)
    more += fmt::format(" transform=\"rotate({:.0f} {:.1f} {:.1f})\"", style.turned, at.x, at.y);
  body_ += fmt::format(
      "<text x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"{:.1f}\" text-anchor=\"{}\" fill=\"{}\"{}>{}"
      "</text>\n",
      at.x, at.y, style.size, kAnchors[static_cast<size_t>(style.align)], style.colour, more,
      escaped(text));
}

std::string Svg::finish() const {
  return fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "viewBox=\"0 0 {0:.0f} {1:.0f}\" font-family=\"Helvetica, Arial, 'DejaVu Sans', "
      "sans-serif\">\n<title>{2}</title>\n{3}</svg>\n",
      width_, height_, escaped(title_), body_);
}

Scale::Scale(Kind kind, double least, double most, double from, double to)
    : kind_(kind), least_(least), most_(most), from_(from), to_(to) {
  if (most_ <= least_) most_ = kind == kLog ? least_ * 10 : least_ + 1;
}

double Scale::place(double value) const {
  const double v = std::clamp(value, least_, most_);
  const double part = kind_ == kLog ? std::log(v / least_) / std::log(most_ / least_)
                                    : (v - least_) / (most_ - least_);
  return from_ + part * (to_ - from_);
}

std::vector<double> Scale::ticks(int about) const {
  std::vector<double> out;
  if (kind_ == kLog) {
    const int first = static_cast<int>(std::ceil(std::log10(least_) - 1e-9));
    const int last = static_cast<int>(std::floor(std::log10(most_) + 1e-9));
    const int stride = std::max(1, (last - first + about) / about);
    for (int e = first; e <= last; e += stride) out.push_back(std::pow(10, e));
    return out;
  }
  const double rough = (most_ - least_) / about;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double nice : {1.0, 2.0, 5.0})
    if (nice * power >= rough) {
      step = nice * power;
      break;
    }
  for (double v = std::ceil(least_ / step) * step; v <= most_ * (1 + 1e-9); v += step)
    out.push_back(v);
  return out;
}

std::vector<double> Scale::minor_ticks() const {
  std::vector<double> out;
  if (kind_ != kLog) return out;
  for (int e = static_cast<int>(std::floor(std::log10(least_))); std::pow(10, e) <= most_; ++e)
    for (int digit = 2; digit <= 9; ++digit)
      if (const double v = digit * std::pow(10, e); holds(v)) out.push_back(v);
  return out;
}

std::string number_text(double value) {
  if (value != 0 && std::abs(value) < 1) return fmt::format("{:.3g}", value);
  if (std::abs(value) < 100 && value != std::floor(value)) return fmt::format("{:.1f}", value);
  const std::string digits = fmt::format("{:.0f}", value);
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    // A thin space in every thousand, from ten thousand on.
    if (i != 0 && digits.size() > 4 && (digits.size() - i) % 3 == 0) out += "\u2009";
    out += digits[i];
  }
  return out;
}

std::string power_text(double value) {
  const int exponent = static_cast<int>(std::lround(std::log10(value)));
  if (exponent >= 0 && exponent <= 3) return number_text(value);
  constexpr std::string_view kRaised[] = {"\u2070", "\u00b9", "\u00b2", "\u00b3", "\u2074",
                                          "\u2075", "\u2076", "\u2077", "\u2078", "\u2079"};
  std::string out = "10";
  if (exponent < 0) out += "\u207b";
  for (const char c : std::to_string(std::abs(exponent))) out += kRaised[c - '0'];
  return out;
}

}  // namespace us::calib
