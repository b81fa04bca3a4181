// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Draws the loss of a run: training as a pale line with its moving mean over it, validation as a line with dots.
#include <dsx/core/error.hpp>
#include <dsx/train/metrics.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace dsx {
namespace {

constexpr double width = 800, height = 460, left = 64, right = 24, top = 56, bottom = 56;

std::string number(double x, const char* format) {
  char text[48];
  std::snprintf(text, sizeof text, format, x);
  return text;
}
/// The step of about `count` round marks over a span: 1, 2 or 5 times a power of ten.
double mark_step(double span, int count) {
  const double rough = span / count, power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (rough <= factor * power) return factor * power;
  return 10 * power;
}
std::string tokens_text(double tokens) {
  if (tokens >= 1e6) return number(tokens / 1e6, "%gM");
  if (tokens >= 1e3) return number(tokens / 1e3, "%gk");
  return number(tokens, "%g");
}

struct Plot {
  double most_tokens, low, high;
  double x(double tokens) const { return left + tokens / most_tokens * (width - left - right); }
  double y(double loss) const { return top + (high - loss) / (high - low) * (height - top - bottom); }
  std::string point(double tokens, double loss) const { return number(x(tokens), "%.1f") + ',' + number(y(loss), "%.1f") + ' '; }
};

std::string line(const std::string& points, const char* style) {
  return concat("<polyline points=\"", points, "\" fill=\"none\" stroke-linejoin=\"round\" ", style, "/>\n");
}
std::string label(double x, double y, const char* anchor, const std::string& text, const char* style = "") {
  return concat("<text x=\"", number(x, "%.1f"), "\" y=\"", number(y, "%.1f"), "\" text-anchor=\"", anchor, "\" ", style, ">", text, "</text>\n");
}

}  // namespace

std::string loss_curve(const std::vector<StepRecord>& records) {
  Plot plot{1, 1e30, -1e30};
  for (const StepRecord& r : records) {
    plot.most_tokens = std::max(plot.most_tokens, double(r.tokens));
    for (const double loss : {r.loss, r.validation_loss.value_or(r.loss)}) plot.low = std::min(plot.low, loss), plot.high = std::max(plot.high, loss);
  }
  if (records.empty()) plot.low = 0, plot.high = 1;
  const double loss_step = mark_step(std::max(plot.high - plot.low, 0.1), 6), token_step = mark_step(plot.most_tokens, 7);
  plot.low = std::floor(plot.low / loss_step) * loss_step, plot.high = std::max(std::ceil(plot.high / loss_step) * loss_step, plot.low + loss_step);

  std::string svg = concat("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ", width, " ", height,
                           "\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#444\">\n",
                           "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n");
  for (double loss = plot.low; loss <= plot.high + loss_step / 2; loss += loss_step) {
    const std::string y = number(plot.y(loss), "%.1f");
    svg += concat("<line x1=\"", left, "\" x2=\"", width - right, "\" y1=\"", y, "\" y2=\"", y, "\" stroke=\"#e4e4e4\"/>\n");
    svg += label(left - 8, plot.y(loss) + 4, "end", number(loss, "%g"));
  }
  for (double tokens = 0; tokens <= plot.most_tokens * 1.0001; tokens += token_step) {
    const std::string x = number(plot.x(tokens), "%.1f");
    svg += concat("<line x1=\"", x, "\" x2=\"", x, "\" y1=\"", height - bottom, "\" y2=\"", height - bottom + 5, "\" stroke=\"#888\"/>\n");
    svg += label(plot.x(tokens), height - bottom + 20, "middle", tokens_text(tokens));
  }
  svg += concat("<line x1=\"", left, "\" x2=\"", width - right, "\" y1=\"", height - bottom, "\" y2=\"", height - bottom, "\" stroke=\"#888\"/>\n");

  std::string each, mean, validation, dots;
  double smooth = 0;
  const std::size_t stride = std::max<std::size_t>(records.size() / 1500, 1);
  for (std::size_t i = 0; i < records.size(); ++i) {
    const StepRecord& r = records[i];
    const double keep = i == 0 ? 0 : std::min(0.95, double(i) / double(i + 10));
    smooth = keep * smooth + (1 - keep) * r.loss;
    if (i % stride == 0 || i + 1 == records.size()) each += plot.point(double(r.tokens), r.loss), mean += plot.point(double(r.tokens), smooth);
    if (!r.validation_loss) continue;
    validation += plot.point(double(r.tokens), *r.validation_loss);
    const std::string x = number(plot.x(double(r.tokens)), "%.1f"), y = number(plot.y(*r.validation_loss), "%.1f");
    dots += concat("<circle cx=\"", x, "\" cy=\"", y, "\" r=\"3.5\"/>");
  }
  svg += line(each, "stroke=\"#9ec5e8\" stroke-width=\"1\"") + line(mean, "stroke=\"#1f6fb4\" stroke-width=\"2\"");
  svg += line(validation, "stroke=\"#d1602a\" stroke-width=\"2\"") + concat("<g fill=\"#d1602a\">", dots, "</g>\n");

  svg += label(left, 24, "start", "Loss by tokens trained", "font-size=\"16\" fill=\"#222\"");
  svg += label(left, 44, "start", "nats a token");
  svg += label(width / 2 + left / 2, height - 14, "middle", "tokens");
  svg += concat("<line x1=\"560\" x2=\"584\" y1=\"20\" y2=\"20\" stroke=\"#1f6fb4\" stroke-width=\"2\"/>",
                label(590, 24, "start", "training (moving mean)"));
  if (!validation.empty()) {
    const auto last = std::find_if(records.rbegin(), records.rend(), [](const StepRecord& r) { return r.validation_loss.has_value(); });
    svg += concat("<line x1=\"560\" x2=\"584\" y1=\"40\" y2=\"40\" stroke=\"#d1602a\" stroke-width=\"2\"/>",
                  label(590, 44, "start", "validation, last " + number(*last->validation_loss, "%.3f")));
  }
  return svg + "</svg>\n";
}

}  // namespace dsx
