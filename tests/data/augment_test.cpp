#include "data/augment.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace mimo {
namespace {

constexpr Augmentation kNone{0, 0, 0, 0, 0, 0};

Augmentation with(double Augmentation::*what, double amplitude) {
  Augmentation a = kNone;
  a.*what = amplitude;
  return a;
}

std::vector<double> noise_image(int height, int width) {
  RandomStream random(1, "image", 0);
  std::vector<double> image(static_cast<size_t>(height * width));
  for (double& x : image) x = random.uniform();
  return image;
}

// The numbers that augment draws, in its order.
struct Drawn {
  double angle, shear, sx, sy, tx, ty, gain, noise;
};
Drawn drawn(const Augmentation& a, RandomStream random) {
  const auto draw = [&](double amplitude) { return random.uniform(-amplitude, amplitude); };
  Drawn d{};
  d.angle = draw(a.rotate) * std::numbers::pi / 180;
  d.shear = draw(a.shear);
  d.sx = 1 + draw(a.scale);
  d.sy = 1 + draw(a.scale);
  d.tx = draw(a.shift);
  d.ty = draw(a.shift);
  d.gain = 1 + draw(a.gain);
  d.noise = a.noise * random.uniform();
  return d;
}

struct Centre {
  double mass = 0, x = 0, y = 0;
};
Centre centre(const std::vector<double>& image, int width) {
  Centre c;
  for (size_t i = 0; i < image.size(); ++i) {
    c.mass += image[i];
    c.x += image[i] * static_cast<double>(static_cast<int>(i) % width);
    c.y += image[i] * static_cast<double>(static_cast<int>(i) / width);
  }
  c.x /= c.mass, c.y /= c.mass;
  return c;
}

TEST(Augment, ZeroAmplitudesChangeNothing) {
  for (const auto& [height, width] : {std::pair{8, 8}, {5, 9}, {1, 1}}) {
    RandomStream random(1, "a", 0);
    const std::vector<double> image = noise_image(height, width);
    EXPECT_EQ(augment(image, height, width, kNone, random), image);
  }
}

// out(x) = in(x + t), and bilinear sampling keeps mass and centre where nothing is cut off.
TEST(Augment, ShiftMovesTheCentre) {
  constexpr int side = 12;
  std::vector<double> image(side * side);
  image[5 * side + 4] = 1, image[6 * side + 7] = 0.5, image[6 * side + 4] = 0.25;
  const Centre before = centre(image, side);
  const Augmentation a = with(&Augmentation::shift, 2.5);
  for (uint32_t i = 0; i < 50; ++i) {
    RandomStream random(1, "shift", i);
    const Drawn d = drawn(a, random);
    const Centre after = centre(augment(image, side, side, a, random), side);
    EXPECT_NEAR(after.mass, before.mass, 1e-12);
    EXPECT_NEAR(after.x, before.x - d.tx, 1e-12);
    EXPECT_NEAR(after.y, before.y - d.ty, 1e-12);
    EXPECT_LE(std::abs(d.tx), 2.5);
  }
}

// A linear ramp is sampled exactly by bilinear interpolation, so every pixel whose source lies inside tells
// where it was read: that checks the whole affine map.
TEST(Augment, ReadsWhereItSays) {
  constexpr int height = 11, width = 15;
  std::vector<double> image;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) image.push_back(0.1 + 0.03 * x + 0.02 * y);
  Augmentation a{0.7, 12, 0.12, 0.2, 0.2, 0};
  int inside = 0;
  for (uint32_t i = 0; i < 20; ++i) {
    RandomStream random(1, "affine", i);
    const Drawn d = drawn(a, random);
    const std::vector<double> out = augment(image, height, width, a, random);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        const double u = d.sx * (x - 7) + d.shear * (y - 5), v = d.sy * (y - 5);
        const double px = 7 + std::cos(d.angle) * u - std::sin(d.angle) * v + d.tx,
                     py = 5 + std::sin(d.angle) * u + std::cos(d.angle) * v + d.ty;
        if (px < 0 || py < 0 || px > width - 1 || py > height - 1) continue;
        ++inside;
        const double expected = std::clamp(d.gain * (0.1 + 0.03 * px + 0.02 * py), 0.0, 1.0);
        EXPECT_NEAR(out[static_cast<size_t>(y * width + x)], expected, 1e-12) << x << ", " << y;
      }
  }
  EXPECT_GT(inside, 20 * height * width / 2);
}

TEST(Augment, RotationKeepsWhatIsRoundAndTurnsWhatIsNot) {
  constexpr int side = 17;
  const auto cone = [](double x, double y) { return std::max(0.0, 1 - std::hypot(x, y) / 7); };
  std::vector<double> round, bar;
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      round.push_back(cone(x - 8, y - 8));
      bar.push_back(std::abs(y - 8) < 2 && std::abs(x - 8) < 6);
    }
  const Augmentation a = with(&Augmentation::rotate, 90);
  double most = 0;
  for (uint32_t i = 0; i < 20; ++i) {
    RandomStream random(1, "turn", i), same(1, "turn", i);
    const std::vector<double> turned = augment(round, side, side, a, random),
                              turned_bar = augment(bar, side, side, a, same);
    // Bilinear interpolation of the cone errs most at its tip, where a cell is sqrt(2) across: by at most a
    // slope of 1/7 times half of that.
    for (size_t p = 0; p < round.size(); ++p) {
      EXPECT_NEAR(turned[p], round[p], std::sqrt(2.0) / 2 / 7);
      most = std::max(most, std::abs(turned_bar[p] - bar[p]));
    }
    EXPECT_NEAR(centre(turned_bar, side).x, 8, 1e-9);  // point symmetry stays
  }
  EXPECT_GT(most, 0.9);
}

TEST(Augment, StaysWithinBoundsAndIsDeterministic) {
  const Augmentation wild{3, 180, 0.5, 1, 1, 2};
  const std::vector<double> image = noise_image(8, 8);
  bool differ = false;
  std::vector<double> before;
  for (uint32_t i = 0; i < 50; ++i) {
    RandomStream a(1, "wild", i), b(1, "wild", i);
    const std::vector<double> out = augment(image, 8, 8, wild, a);
    EXPECT_EQ(out, augment(image, 8, 8, wild, b));
    for (double x : out) EXPECT_TRUE(x >= 0 && x <= 1) << x;
    differ = differ || out != before;
    before = out;
  }
  EXPECT_TRUE(differ);
}

// Noise of standard deviation s drawn from [0, a] on a half-inked image: its mean square is a^2 / 3. Over 400
// images of 64 pixels the bound is five standard deviations: those of s^2 over images dominate, sqrt(4 / 45)
// a^2.
TEST(Augment, NoiseAndGainAreAsWide) {
  const std::vector<double> half(64, 0.5);
  double square = 0, low = 1, high = 0;
  for (uint32_t i = 0; i < 400; ++i) {
    RandomStream a(1, "noise", i), b(1, "gain", i);
    for (double x : augment(half, 8, 8, with(&Augmentation::noise, 0.1), a))
      square += (x - 0.5) * (x - 0.5) / (400 * 64);
    const double x = augment(half, 8, 8, with(&Augmentation::gain, 0.2), b)[27];
    low = std::min(low, x), high = std::max(high, x);
  }
  EXPECT_NEAR(square, 0.01 / 3, 5 * std::sqrt(4.0 / 45) * 0.01 / std::sqrt(400.0));
  EXPECT_GE(low, 0.4);
  EXPECT_LT(low, 0.405);  // (1 - 0.025)^400 = 4e-5
  EXPECT_LE(high, 0.6);
  EXPECT_GT(high, 0.595);
}

}  // namespace
}  // namespace mimo
