#include "data/loader.h"

#include <algorithm>

#include "kernels/cpu/threads.h"
#include "kernels/patchify.h"

namespace mimo {
namespace {

// Fills items.patches: the images' lightness, normalised, patch by patch.
template <class T>
void cut_patches(const std::vector<const Image*>& images, const DatasetHeader& header, int patch,
                 PackedItems& items) {
  T normalised[256];
  for (int x = 0; x < 256; ++x)
    normalised[x] = static_cast<T>(static_cast<float>((x / 255.0 - header.mean) / header.std));
  std::vector<int64_t> first(images.size());
  std::vector<T> pixels(static_cast<size_t>(items.patches.numel()));
  T* out = pixels.data();
  for (size_t i = 0; i < images.size(); ++i) {
    first[i] = out - pixels.data();
    for (uint8_t x : images[i]->pixels) *out++ = normalised[x];
  }
  run(Cpu{}, Patchify<T>{.in = {.images = static_cast<int>(images.size()),
                                .rows = items.cu_items.back(),
                                .first_pixel = first.data(),
                                .sizes = items.sizes.data(),
                                .cu = items.cu_items.data(),
                                .channels = header.channels,
                                .patch = patch},
                         .pixels = pixels.data(),
                         .patches = items.patches.data<T>()});
}

}  // namespace

SampleOrder::SampleOrder(int64_t samples, uint64_t seed) : samples_(samples), seed_(seed) {
  if (samples < 1) throw ConfigError("data.path", "nothing to train on: expected samples, found none");
}

std::vector<int64_t> SampleOrder::samples(int64_t position, int64_t count) const {
  std::vector<int64_t> out;
  for (int64_t p = position; p < position + count; ++p)
    out.push_back(Permutation(samples_, seed_, static_cast<uint64_t>(p / samples_))(p % samples_));
  return out;
}

PackedBatch pack(const std::vector<Sample>& samples, const DatasetHeader& header,
                 const std::vector<ItemCut>& cuts, const std::vector<bool>& wants_pixels, DType dtype) {
  PackedBatch b;
  b.items.resize(cuts.size());
  b.cu_seqlens = {0};
  for (PackedItems& items : b.items) items.cu_items = {0};
  std::vector<std::vector<const Image*>> images(cuts.size());
  for (const Sample& s : samples) {
    size_t item = 0;
    const auto begin = static_cast<int32_t>(b.tokens.size());
    // The last token is a label only: nothing follows it.
    for (size_t t = 0; t + 1 < s.tokens.size(); ++t) {
      int32_t rows = 1;
      if (item < s.items.size() && s.items[item].position == static_cast<int>(t)) {
        const Sample::Item& it = s.items[item++];
        const size_t m = static_cast<size_t>(it.modality);
        const ItemSize size = cut_item(cuts.at(m), it.image.height, it.image.width, header.modalities.at(m));
        rows = size.rows;
        PackedItems& packed = b.items[m];
        packed.sizes.insert(packed.sizes.end(), {size.height, size.width});
        packed.cu_items.push_back(packed.cu_items.back() + size.height * size.width);
        for (int32_t r = 0; r < rows; ++r) packed.rows.push_back(static_cast<int32_t>(b.tokens.size()) + r);
        images[m].push_back(&it.image);
      }
      for (int32_t r = 0; r < rows; ++r) {
        b.positions.push_back(static_cast<int32_t>(b.tokens.size()) - begin);
        b.tokens.push_back(s.tokens[t]);
        const bool counts = r + 1 == rows && s.counted[t + 1];
        b.labels.push_back(counts ? s.tokens[t + 1] : -1);
        b.counted += counts;
      }
    }
    MIMO_CHECK(item == s.items.size(), "an item's place is none of the text, or its last");
    b.cu_seqlens.push_back(static_cast<int32_t>(b.tokens.size()));
  }
  for (size_t m = 0; m < cuts.size(); ++m) {
    if (!wants_pixels.at(m)) continue;
    PackedItems& items = b.items[m];
    const int64_t features = int64_t{header.channels} * cuts[m].patch * cuts[m].patch;
    for (const Image* image : images[m])
      MIMO_CHECK(
          image->channels == header.channels && static_cast<int64_t>(image->pixels.size()) ==
                                                    int64_t{image->channels} * image->height * image->width,
          "an image and its size");
    items.patches = Tensor::empty({items.cu_items.back(), features}, dtype, Device{});
    dispatch(dtype, [&]<class T>() { cut_patches<T>(images[m], header, cuts[m].patch, items); });
  }
  return b;
}

PackedBatch pack(const Split& split, const DatasetHeader& header, const std::vector<ItemCut>& cuts,
                 const std::vector<int64_t>& ids, const std::vector<bool>& wants_pixels, DType dtype) {
  const bool pixels = std::find(wants_pixels.begin(), wants_pixels.end(), true) != wants_pixels.end();
  std::vector<Sample> samples;
  for (int64_t id : ids) samples.push_back(split.read(id, pixels));
  PackedBatch b = pack(samples, header, cuts, wants_pixels, dtype);
  b.samples = ids;
  return b;
}

Loader::Loader(const Split& split, DatasetHeader header, std::vector<ItemCut> cuts, DType dtype, int workers)
    : split_(split), header_(std::move(header)), cuts_(std::move(cuts)), dtype_(dtype) {
  for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { work(); });
}

Loader::~Loader() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& t : threads_) t.join();
}

PackedBatch Loader::make(const Request& r) const {
  return pack(split_, header_, cuts_, r.samples, r.wants_pixels, dtype_);
}

void Loader::submit(Request r) {
  {
    std::lock_guard lock(mutex_);
    queue_.emplace_back(submitted_++, std::move(r));
  }
  changed_.notify_all();
}

PackedBatch Loader::take() {
  std::unique_lock lock(mutex_);
  MIMO_CHECK(taken_ < submitted_, "a batch was taken that nobody asked for");
  const size_t id = taken_++;
  if (threads_.empty()) {
    const Request r = std::move(queue_.front().second);
    queue_.pop_front();
    return make(r);
  }
  changed_.wait(lock, [&] { return done_.count(id) > 0; });
  Done d = std::move(done_.at(id));
  done_.erase(id);
  if (d.error) std::rethrow_exception(d.error);
  return std::move(d.batch);
}

void Loader::work() {
  const Serial alone;  // the ranks' cores belong to compute
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
    if (stop_) return;
    auto [id, request] = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    Done d;
    try {
      d.batch = make(request);
    } catch (...) {
      d.error = std::current_exception();
    }
    lock.lock();
    done_[id] = std::move(d);
    changed_.notify_all();
  }
}

}  // namespace mimo
