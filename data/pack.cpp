#include "data/pack.h"

#include <algorithm>

#include "data/decoder.h"
#include "kernels/patchify.h"

namespace mimo {
namespace {

// Patches of a grid in the order of its rows: merge x merge neighbours follow each other.
std::vector<int32_t> merged_order(const ItemSize& size, int merge) {
  std::vector<int32_t> order;
  for (int t = 0; t < size.time; ++t)
    for (int y = 0; y < size.height; y += merge)
      for (int x = 0; x < size.width; x += merge)
        for (int dy = 0; dy < merge; ++dy)
          for (int dx = 0; dx < merge; ++dx)
            order.push_back((t * size.height + y + dy) * size.width + x + dx);
  return order;
}

// Fills `patches` [P, features]: every patch_time frames of an item are one image of channels * patch_time
// planes.
template <class T>
void cut_patches(const std::vector<const Sample::Item*>& items, const std::vector<ItemSize>& sizes,
                 const Preprocessing& p, Tensor& patches) {
  std::vector<int64_t> first;
  std::vector<int32_t> grids, cu{0};
  std::vector<T> planes;
  planes.reserve(static_cast<size_t>(patches.numel()));
  std::vector<float> numbers;
  const Decoder& decoder = decoder_of(p);
  for (size_t i = 0; i < items.size(); ++i) {
    const ItemShape shape = decoder.shape(items[i]->shape, p);
    numbers.resize(static_cast<size_t>(shape.numel()));
    decoder.decode(items[i]->bytes, items[i]->shape, p, numbers.data());
    const int64_t plane = int64_t{shape.height} * shape.width;
    for (int t = 0; t < shape.time; t += p.patch_time) {
      first.push_back(static_cast<int64_t>(planes.size()));
      grids.insert(grids.end(), {sizes[i].height, sizes[i].width});
      cu.push_back(cu.back() + sizes[i].height * sizes[i].width);
      for (int c = 0; c < shape.channels; ++c) {
        const float* from = numbers.data() + (int64_t{c} * shape.time + t) * plane;
        planes.insert(planes.end(), from, from + p.patch_time * plane);
      }
    }
  }
  run(Cpu{}, Patchify<T>{.in = {.images = static_cast<int>(first.size()),
                                .rows = cu.back(),
                                .first_pixel = first.data(),
                                .sizes = grids.data(),
                                .cu = cu.data(),
                                .channels = p.channels * p.patch_time,
                                .patch = p.patch},
                         .pixels = planes.data(),
                         .patches = patches.data<T>()});
  if (!p.merged_order || p.merge == 1) return;
  const std::vector<T> raster(patches.data<T>(), patches.data<T>() + patches.numel());
  T* out = patches.data<T>();
  int64_t begin = 0;
  for (const ItemSize& size : sizes) {
    for (int32_t patch : merged_order(size, p.merge)) {
      std::copy_n(raster.data() + (begin + patch) * p.features(), p.features(), out);
      out += p.features();
    }
    begin += size.patches();
  }
}

// The positions of one row, or of the rows of an item, from `next` on.
void add_positions(PackedBatch& b, int32_t rows, const ItemSize* item, int merge, int32_t& next) {
  if (b.position_axes == 1 || !item) {
    for (int32_t r = 0; r < rows; ++r, ++next) b.positions.insert(b.positions.end(), b.position_axes, next);
    return;
  }
  const int32_t height = item->height / merge, width = item->width / merge;
  for (int32_t t = 0; t < item->time; ++t)
    for (int32_t y = 0; y < height; ++y)
      for (int32_t x = 0; x < width; ++x)
        b.positions.insert(b.positions.end(), {next + t, next + y, next + x});
  next += std::max(height, width);
}

}  // namespace

PackedBatch pack(const std::vector<Sample>& samples, const Packing& packing, const std::vector<bool>& wants) {
  MIMO_CHECK(packing.position_axes == 1 || packing.position_axes == 3, "positions have 1 or 3 axes");
  PackedBatch b;
  const size_t modalities = packing.modalities.size();
  b.position_axes = packing.position_axes;
  b.items.resize(modalities);
  b.cu_seqlens = {0};
  for (PackedItems& items : b.items) items.cu_items = {0};
  std::vector<std::vector<const Sample::Item*>> found(modalities);
  std::vector<std::vector<ItemSize>> sizes(modalities);
  for (const Sample& s : samples) {
    size_t item = 0;
    int32_t position = 0;
    // The last token is a label only: nothing follows it.
    for (size_t t = 0; t + 1 < s.tokens.size(); ++t) {
      const ItemSize* size = nullptr;
      int merge = 1;
      if (item < s.items.size() && s.items[item].position == static_cast<int>(t)) {
        const Sample::Item& it = s.items[item++];
        const size_t m = static_cast<size_t>(it.modality);
        merge = packing.modalities.at(m).merge;
        found[m].push_back(&it);
        size = &sizes[m].emplace_back(item_size(packing.modalities[m], it.shape));
        PackedItems& packed = b.items[m];
        packed.sizes.insert(packed.sizes.end(), {size->time, size->height, size->width});
        packed.cu_items.push_back(packed.cu_items.back() + static_cast<int32_t>(size->patches()));
        for (int32_t r = 0; r < size->rows; ++r)
          packed.rows.push_back(static_cast<int32_t>(b.tokens.size()) + r);
      }
      const int32_t rows = size ? size->rows : 1;
      add_positions(b, rows, size, merge, position);
      b.tokens.insert(b.tokens.end(), static_cast<size_t>(rows), s.tokens[t]);
      b.labels.insert(b.labels.end(), static_cast<size_t>(rows), -1);
      if (s.counted[t + 1]) b.labels.back() = s.tokens[t + 1], ++b.counted;
    }
    MIMO_CHECK(item == s.items.size(), "an item's place is none of the text, or its last");
    b.cu_seqlens.push_back(static_cast<int32_t>(b.tokens.size()));
  }
  for (size_t m = 0; m < modalities; ++m) {
    if (!wants.at(m)) continue;
    const Preprocessing& p = packing.modalities[m];
    for (const Sample::Item* item : found[m])
      MIMO_CHECK(static_cast<int64_t>(item->bytes.size()) == item->shape.numel(), "an item and its shape");
    b.items[m].patches = Tensor::empty({b.items[m].cu_items.back(), p.features()}, packing.dtype, Device{});
    dispatch(packing.dtype, [&]<class T>() { cut_patches<T>(found[m], sizes[m], p, b.items[m].patches); });
  }
  return b;
}

PackedBatch pack(const Split& split, const Packing& packing, const std::vector<int64_t>& ids,
                 const std::vector<bool>& wants) {
  const bool bytes = std::find(wants.begin(), wants.end(), true) != wants.end();
  std::vector<Sample> samples;
  for (int64_t id : ids) samples.push_back(split.read(id, bytes));
  PackedBatch b = pack(samples, packing, wants);
  b.samples = ids;
  return b;
}

}  // namespace mimo
