#include "data/task.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tensor/edit_distance.h"
#include "tensor/error.h"
#include "tests/io/temp_dir.h"

namespace mimo {
namespace {

using Ids = std::vector<int32_t>;

double score(const std::string& task, const Ids& labels, const Ids& predicted, double loss = 0) {
  return task_named(task, "").score({labels, predicted, loss});
}
std::optional<double> figure(const std::string& task, const std::vector<Judged>& samples) {
  return task_named(task, "").figure(samples);
}

TEST(Task, ExactMatch) {
  EXPECT_EQ(score("exact_match", {1, 2, 3}, {1, 2, 3}), 1);
  EXPECT_EQ(score("exact_match", {1, 2, 3}, {1, 2, 4}), 0);
  EXPECT_EQ(score("exact_match", {1, 2, 3}, {4, 2, 3}), 0);
  EXPECT_EQ(score("exact_match", {}, {}), 0) << "where nothing counts nothing is right";
  EXPECT_EQ(figure("exact_match", {{1, 2}, {0, 1}, {1, 1}, {1, 9}}), 0.75);
  EXPECT_EQ(figure("exact_match", {}), std::nullopt);
}

TEST(Task, Perplexity) {
  EXPECT_EQ(score("perplexity", {1, 2}, {5, 6}, 1.5), 1.5);
  // By label, not by sample: (3 ln 2 + ln 16) / 4.
  EXPECT_DOUBLE_EQ(*figure("perplexity", {{3 * std::log(2), 3}, {std::log(16), 1}}),
                   std::exp(7 * std::log(2) / 4));
  EXPECT_EQ(figure("perplexity", {{0, 0}}), std::nullopt);
}

TEST(Task, ChoiceAccuracy) {
  // Right; beaten by its second rival; a tie is not won; alone, which is no question.
  const std::vector<Judged> samples{{1, 2, 0},   {2, 2, 1}, {3, 2, 0}, {4, 2, 1},
                                    {2.5, 2, 1}, {1, 2, 0}, {1, 2, 2}, {9, 2, 0}};
  EXPECT_DOUBLE_EQ(*figure("choice_accuracy", samples), 1 / 3.0);
  EXPECT_EQ(figure("choice_accuracy", {{1, 1, 1}, {2, 1, 0}, {3, 1, 1}}), 1)
      << "rivals of a question that is not here";
  EXPECT_EQ(figure("choice_accuracy", {{1, 1, 1}}), std::nullopt);
  EXPECT_FALSE(task_named("choice_accuracy", "").by_group);
}

TEST(Task, EditDistance) {
  EXPECT_EQ(score("edit_distance", {1, 2, 3, 4}, {1, 2, 3, 4}), 0);
  EXPECT_EQ(score("edit_distance", {1, 2, 3, 4}, {2, 3, 4, 9}), 0.5) << "one gone, one new";
  EXPECT_EQ(score("edit_distance", {}, {}), 0);
  EXPECT_EQ(figure("edit_distance", {{0, 4}, {0.5, 4}}), 0.25);
}

TEST(Task, Names) {
  EXPECT_CONTAINS(
      thrown<ConfigError>([] { task_named("guess", "eval.task"); }),
      "[eval.task] no such evaluation task: expected one of choice_accuracy, edit_distance, exact_match, "
      "perplexity, found guess");
}

TEST(EditDistance, CountsEdits) {
  const auto d = [](const std::string& a, const std::string& b, bool swaps) {
    return edit_distance(a, b, swaps);
  };
  EXPECT_EQ(d("", "", false), 0u);
  EXPECT_EQ(d("", "abc", false), 3u);
  EXPECT_EQ(d("kitten", "sitting", false), 3u);
  EXPECT_EQ(d("ab", "ba", false), 2u);
  EXPECT_EQ(d("ab", "ba", true), 1u);
}

}  // namespace
}  // namespace mimo
