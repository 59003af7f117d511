// What a run says while it goes on: lines that stay, and one line of progress that fits the terminal.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mimo {

// A part of the line of progress. Where the line is too long for the terminal, the columns of the highest
// number are shortened first, then left out.
struct Column {
  int number = 0;
  std::string text, brief = text;  // brief: what is still worth a place when `text` finds none
};

// The columns side by side in at most `width` characters (of UTF-8).
std::string fit(const std::vector<Column>&, size_t width);

// On a terminal progress stays on one line, whatever the terminal's width; elsewhere it is plain lines, fewer
// of them, with everything in them.
class Progress {
 public:
  explicit Progress(bool shown);
  ~Progress();
  Progress(const Progress&) = delete;

  // Where the run is; `line_here`: also where only some lines are shown.
  void update(const std::vector<Column>&, bool line_here);
  void say(const std::string& text);

 private:
  // A run goes on without its output: one note, where standard output cannot be written any more.
  void write(const std::string& text);
  bool shown_;
  int terminal_;  // a descriptor of it; -1: none
  double drawn_ = 0;
};

// The seconds that a run still takes: what is left of each kind of work, at the pace of that kind so far.
class TimeLeft {
 public:
  struct Run {
    int64_t steps = 0, batch = 1;              // in all; samples of a step
    int64_t eval_every = 0, eval_samples = 0;  // 0: only at the end; samples of an evaluation before that
    int64_t heldout = 0;                       // samples of the last evaluation
    int64_t save_every = 0;                    // 0: never
  };
  explicit TimeLeft(const Run& run) : run_(run) {}

  void stepped(double seconds) { step_.add(seconds, 1); }
  void evaluated(double seconds, int64_t samples) { sample_.add(seconds, static_cast<double>(samples)); }
  void saved(double seconds) { save_.add(seconds, 1); }

  double after(int64_t step) const;

 private:
  struct Pace {
    double seconds = 0, amount = 0;
    void add(double s, double n) { seconds += s, amount += n; }
    double of(double n) const { return amount > 0 ? n * seconds / amount : 0; }
  };
  Run run_;
  Pace step_, sample_, save_;
};

// "0.9708"; "-" where there is no value.
std::string figure_text(std::optional<double> value, int digits = 4);

// "45 s", "12:07"
std::string time_text(double seconds);

}  // namespace mimo
