#include "data/decoder.h"

#include "tensor/error.h"

namespace mimo {

const Decoder& decoder_of(const Preprocessing& p) {
  const Decoder* found = Registry<Decoder>::find(p.decoder);
  if (!found)
    throw ConfigError(p.modality, "no such decoder: expected one of " + Registry<Decoder>::names() +
                                      ", found " + p.decoder);
  return *found;
}

}  // namespace mimo
