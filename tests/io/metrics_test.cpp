#include "io/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "io/file.h"
#include "tensor/error.h"
#include "tests/io/temp_dir.h"

namespace mimo {
namespace {

StepMetrics at(int64_t step) {
  StepMetrics m;
  m.step = step;
  m.loss = 1.0 / 3.0 + static_cast<double>(step);
  m.tokens = 1000 * step;
  m.grad_norm = 0.1;
  m.lr = 1e-5;
  m.step_seconds = 5e-324;
  m.tokens_per_second = 1.7976931348623157e308;
  m.more = {{"eval/loss \"x\"", 0.30000000000000004}, {"bubble", 0}};
  return m;
}

TEST(Metrics, ALineReadsBackExactly) {
  TempDir dir;
  MetricsWriter writer(dir / "metrics.jsonl");
  writer.write(at(1));
  // Flushed: another reader sees the line while the writer lives.
  const auto read = read_metrics(dir / "metrics.jsonl");
  ASSERT_EQ(read.size(), 1u);
  EXPECT_EQ(read[0], at(1));
}

TEST(Metrics, ShortestForm) {
  StepMetrics m;
  m.step = 7;
  m.loss = 0.1;
  m.tokens = 12;
  m.grad_norm = 2;
  m.lr = 3e-4;
  EXPECT_EQ(to_json(m),
            "{\"step\":7,\"loss\":0.1,\"tokens\":12,\"grad_norm\":2,\"lr\":3e-04,\"step_seconds\":0,"
            "\"tokens_per_second\":0}");
}

TEST(Metrics, WhatIsNotFiniteIsAString) {
  TempDir dir;
  StepMetrics m = at(1);
  m.loss = std::numeric_limits<double>::quiet_NaN();
  m.grad_norm = std::numeric_limits<double>::infinity();
  m.more = {{"low", -std::numeric_limits<double>::infinity()}};
  MetricsWriter(dir / "m").write(m);
  EXPECT_CONTAINS(read_text(dir / "m"), "\"loss\":\"NaN\"");
  const StepMetrics r = read_metrics(dir / "m").at(0);
  EXPECT_TRUE(std::isnan(r.loss.value()));
  EXPECT_EQ(r.grad_norm, m.grad_norm);
  EXPECT_EQ(r.more, m.more);
}

TEST(Metrics, WhatHasNoValueIsNull) {
  TempDir dir;
  StepMetrics m = at(1);
  m.loss.reset();
  MetricsWriter(dir / "m").write(m);
  EXPECT_CONTAINS(read_text(dir / "m"), "\"loss\":null,");
  EXPECT_EQ(read_metrics(dir / "m").at(0), m);
}

TEST(Metrics, ResumingLeavesTheBytesOfAnUninterruptedRun) {
  TempDir dir;
  {
    MetricsWriter straight(dir / "straight");
    for (int s = 1; s <= 6; ++s) straight.write(at(s));
  }
  {
    MetricsWriter first(dir / "resumed");
    for (int s = 1; s <= 5; ++s) first.write(at(s));
  }
  std::ofstream(dir / "resumed", std::ios::app) << "{\"step\":6,\"lo";  // torn by a crash
  EXPECT_EQ(read_metrics(dir / "resumed").size(), 5u);
  {
    MetricsWriter second(dir / "resumed", 3);
    for (int s = 4; s <= 6; ++s) second.write(at(s));
  }
  EXPECT_EQ(read_text(dir / "straight"), read_text(dir / "resumed"));
  {
    MetricsWriter anew(dir / "resumed");
    anew.write(at(1));
  }
  EXPECT_EQ(read_metrics(dir / "resumed").size(), 1u);
}

TEST(Metrics, ResumingWithoutAFileStartsOne) {
  TempDir dir;
  MetricsWriter(dir / "m", 10).write(at(11));
  EXPECT_EQ(read_metrics(dir / "m").at(0).step, 11);
}

TEST(Metrics, Errors) {
  TempDir dir;
  std::ofstream(dir / "bad") << to_json(at(1)) << "\n{\"step\":2}\n" << to_json(at(3)) << '\n';
  EXPECT_CONTAINS(thrown<ConfigError>([&] { read_metrics(dir / "bad"); }), "bad:2] not a line of metrics");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { MetricsWriter(dir / "bad", 2); }), "bad:2]");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { read_metrics(dir / "none"); }), "none] cannot read");
  EXPECT_CONTAINS(thrown<std::runtime_error>([&] { MetricsWriter(dir / "no" / "such"); }), "cannot write");
  MetricsWriter writer(dir / "m", 4);
  EXPECT_ANY_THROW(writer.write(at(4)));  // steps rise
}

TEST(Metrics, SummaryKeepsItsOrderAndReplacesTheFile) {
  TempDir dir;
  write_summary(dir / "summary.json", {{"steps", 1}});
  write_summary(dir / "summary.json", {{"steps", 2}, {"final_loss", 0.1}, {"a", "b"}});
  EXPECT_EQ(read_text(dir / "summary.json"),
            "{\n  \"steps\": 2,\n  \"final_loss\": 0.1,\n  \"a\": \"b\"\n}\n");
  EXPECT_FALSE(std::filesystem::exists(dir / "summary.json.tmp"));
}

TEST(File, HashesArePublishedOnes) {
  // XXH3-128 of the empty input, seed 0: the value in xxHash's own tests.
  EXPECT_EQ(hash_text(""), "99aa06d3014798d86001c324468d497f");
  TempDir dir;
  const std::string bytes(3'000'000, 'z');
  write_text(dir / "z", bytes);
  EXPECT_EQ(hash_file(dir / "z"), hash_text(bytes));
  EXPECT_CONTAINS(thrown<ConfigError>([&] { hash_file(dir / "none"); }), "none] cannot read");
  EXPECT_CONTAINS(thrown<ConfigError>([&] { read_text(dir.path()); }), "found a directory");
}

}  // namespace
}  // namespace mimo
