// The projector: from an encoder's features to the width of the language model.
//   none: y = x;  affine: y = W x;  mlp: y = W_2 relu2(W_1 rms_norm(x))
// Its parameters have names of their own (PREFIX.*), so that it can be trained alone. The mlp's norm, linear1
// and linear2 are mlp1.0, .1, .3 of Nemotron-Nano-VL.
#pragma once
#include <string>

#include "io/fields.h"
#include "nn/linear.h"
#include "nn/module.h"

namespace mimo {

struct ProjectorOptions {
  std::string kind = "mlp";  // none, affine, mlp
  int64_t ffn = 256;         // of mlp
};

// Its keys, under the names that the module gives them.
Fields<ProjectorOptions> projector_fields(const std::string& kind, const std::string& ffn);

class Projector {
 public:
  Projector() = default;
  Projector(ParameterSet&, const std::string& prefix, const ProjectorOptions&, int64_t in, int64_t out);
  Tensor operator()(const Tensor& x) const;  // [T, in] -> [T, out]

 private:
  Parameter* norm_ = nullptr;
  Linear up_, down_;
  bool mlp_ = false, none_ = true;
};

PartCost projector_cost(const ProjectorOptions&, int64_t in, int64_t out, int64_t rows, int tp, DType);

}  // namespace mimo
