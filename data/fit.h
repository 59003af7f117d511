// Brings an image from outside to what a model was trained on.
#pragma once
#include <string>

#include "data/dataset.h"

namespace mimo {

// What the images of a modality are like: heights in pixels, and lightness (the mean of an image's pixels, 0
// to 255), both of the first samples that have images.
struct ImageRange {
  int least_height = 0, most_height = 0;
  double darkest = 255, lightest = 0;
};
ImageRange image_range(const Split&, int modality, int64_t images = 1000);

// An image higher or lower than all of those is scaled to the nearest of their heights, to a width in
// proportion, rounded to a multiple of `side`; then, if it is darker or lighter than all of them and its
// negative is not, or by less than a quarter of that, as white ink on black paper is, it is turned. `done`
// says so in words, and is empty for an image that stays as it is.
Image fit(Image, const ImageRange&, int side, std::string& done);

}  // namespace mimo
