// docs/data.md: its script writes a dataset, and a model learns from it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>

#include "io/file.h"
#include "parallel/world.h"
#include "tests/io/temp_dir.h"
#include "tools/run/trainer.h"

namespace mimo {
namespace {

TEST(DataPage, ADatasetWrittenByH5pyTrains) {
  const std::string page = read_text("docs/data.md"), fence = "```python\n";
  const size_t begin = page.find(fence) + fence.size();
  const std::string script = page.substr(begin, page.find("```", begin) - begin);
  int lines = 0;
  std::istringstream in(script);
  for (std::string line; std::getline(in, line);) lines += !line.empty();
  EXPECT_LE(lines, 25) << "as short as the page says";
  TempDir dir;
  write_text(dir / "write.py", script);
  // Debian's packages belong to Debian's Python, which need not be the first on the path.
  ASSERT_EQ(std::system(("cd " + (dir / "").string() +
                         " && for p in python3 /usr/bin/python3; do $p -c 'import h5py' 2>/dev/null && exec "
                         "$p write.py; done; exit 1")
                            .c_str()),
            0)
      << "needs python3-h5py: make deps";

  const Job job = make_job("tests/docs/patches.toml",
                           {"--data.path=" + (dir / "strokes.h5").string(), "--data.workers=0"}, 1);
  EXPECT_EQ(job.data->train.samples(), 2000);
  EXPECT_EQ(job.data->tokenizer->special("<image>"), 258);
  const Sample s = job.data->heldout.read(7);
  int strokes = 0;
  for (int x = 0; x < 40; ++x) strokes += s.items.at(0).bytes[static_cast<size_t>(x)] == 0;
  EXPECT_EQ(s.tokens, (std::vector<int32_t>{256, 258, '=', '0' + strokes, 257}));
  EXPECT_EQ(job.data->heldout.sizes(7).tokens, 4 + 4);  // five patches in the place of one token

  const auto world = self_world();
  Trainer trainer(job, *world);
  const double first = trainer.step().loss.value();
  double last = first;
  for (int i = 0; i < 39; ++i) last = trainer.step().loss.value();
  EXPECT_LT(last, 0.5 * first);
}

}  // namespace
}  // namespace mimo
