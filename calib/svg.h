// Just enough of SVG 1.1 to draw charts: shapes are added in the order they are painted in.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace us::calib {

struct Point {
  double x = 0, y = 0;
};

struct Stroke {
  std::string_view colour = "#333333";
  double width = 1;
  std::string_view dash = "";  // "5 3"
};

enum class Align : uint8_t { kStart, kMiddle, kEnd };

struct TextStyle {
  double size = 12;
  Align align = Align::kStart;
  bool bold = false;
  std::string_view colour = "#222222";
  double turned = 0;  // degrees, clockwise, about its own place
};

class Svg {
 public:
  // White behind everything: readable in print and on a dark page.
  Svg(double width, double height, std::string_view title);

  void line(Point from, Point to, const Stroke& stroke);
  void path(const std::vector<Point>& points, const Stroke& stroke);
  void box(Point corner, double width, double height, std::string_view fill, double opacity = 1);
  void dot(Point centre, double radius, std::string_view fill, std::string_view edge);
  void text(Point at, std::string_view text, const TextStyle& style = {});

  std::string finish() const;

 private:
  double width_, height_;
  std::string title_, body_;
};

// A number's place between two ends of a line on the page.
class Scale {
 public:
  enum Kind : uint8_t { kLinear, kLog };
  Scale(Kind kind, double least, double most, double from, double to);

  double place(double value) const;  // values beyond the ends are moved to them
  double least() const { return least_; }
  double most() const { return most_; }
  bool holds(double value) const { return least_ <= value && value <= most_; }
  // Round numbers, about so many; on a log scale powers of ten.
  std::vector<double> ticks(int about) const;
  // Between the powers of ten, unlabelled.
  std::vector<double> minor_ticks() const;

 private:
  Kind kind_;
  double least_, most_, from_, to_;
};

// "0", "250", "12 000", "0.01"; on log scales powers of ten, "10" with a raised exponent.
std::string number_text(double value);
std::string power_text(double value);

}  // namespace us::calib
