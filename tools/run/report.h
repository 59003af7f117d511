// runs/NAME/report.html: one self-contained page on a finished run.
#pragma once
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace mimo {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x, y
};

struct ReadImage {
  std::vector<std::vector<uint8_t>> png;  // the sample's images
  std::string prompt, expected, reading;
  bool right() const { return expected == reading; }
};

struct Report {
  std::string title;
  std::vector<std::pair<std::string, std::string>> figures;  // shown large: what it is, value
  std::vector<std::pair<std::string, std::string>> facts;    // shown as a table
  Series loss, held_out;                                     // over steps
  std::string task;                                          // what held-out samples are judged by
  Series figure;                                             // over steps, of the task; its name is the title
  std::vector<std::pair<std::string, double>>
      module_ms;  // mean milliseconds a step, by module and kind of work
  std::vector<std::pair<std::string, double>> by_length;    // the task's figure
  std::vector<std::pair<std::string, std::string>> layout;  // module, grid
  std::string plan_svg, plan_note;
  std::vector<ReadImage> images;
};

void write_report(const Report&, const std::filesystem::path& file);

}  // namespace mimo
