// What a run says while it goes on: lines that stay, and one line of progress.
#pragma once
#include <string>

namespace mimo {

// On a terminal progress stays on one line; elsewhere it is plain lines, fewer of them.
class Progress {
 public:
  explicit Progress(bool shown);

  // Where the run is; `line_here`: also where only some lines are shown.
  void update(const std::string& text, bool line_here);
  void say(const std::string& text);

 private:
  bool shown_, terminal_;
  double drawn_ = 0;
};

// "45 s", "12:07"
std::string time_text(double seconds);

}  // namespace mimo
