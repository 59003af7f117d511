// The context of a step: what a stage's forward gets besides its inputs and gives besides its outputs.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tensor/autograd.h"

namespace mimo {

// What a step adds up by name ("loss": over counted tokens). Every rank adds its own share; one reduction
// over the world sums them, so that all ranks know the same names from the start.
class Sums {
 public:
  Sums() = default;
  explicit Sums(const std::vector<std::string>& names) {
    for (const std::string& n : names) values_[n] = 0;
  }
  double& operator[](const std::string& name);  // throws std::logic_error for a name that was not declared
  double operator[](const std::string& name) const;  // likewise
  // The part that still lies on the device, f64 [1], to be added to there.
  Tensor& on_device(const std::string& name);
  void settle();  // moves what lies on devices here; waits for it
  // All of them in the order of their names; settled.
  std::vector<double> values() const;
  void set(const std::vector<double>&);

 private:
  std::map<std::string, double> values_;
  std::map<std::string, Tensor> on_device_;
};

// Of one forward of a stage and of the backward that belongs to it.
class Step {
 public:
  // scale: the gradient of every loss, 1 but where small gradients would vanish.
  explicit Step(Sums& all, double loss_scale = 1) : sums(all), scale(loss_scale) {}
  Step(const Step&) = delete;

  Sums& sums;
  const double scale;

  // A sum of losses [1] of this lane: backward starts from all of them, each with gradient `scale`.
  void loss(const Tensor& sum) { losses_.push_back(sum); }
  const std::vector<Tensor>& losses() const { return losses_; }

  // x, the input of a part of the stage: when backward has come to it, the gradients of that part's
  // parameters and of all later ones are complete, and what when_ready was given is called.
  Tensor enter(const Tensor& x, int part);
  void when_ready(std::function<void(int part)> f) { *ready_ = std::move(f); }

  void release() { losses_.clear(); }  // the graph

 private:
  std::vector<Tensor> losses_;
  // Shared with the graph, which may outlive this.
  std::shared_ptr<std::function<void(int)>> ready_ = std::make_shared<std::function<void(int)>>();
};

}  // namespace mimo
