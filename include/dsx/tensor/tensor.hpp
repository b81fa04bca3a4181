// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A matrix that owns its elements, in host memory: for a program's own data, next to kernels that take views.
///
///     Tensor<float> x{{2, 3}, {1, 2, 3, 4, 5, 6}};
///     x(1, 2) = 7;
///     kernels::scale(x.view(), 0.5, x.view());
#pragma once

#include <dsx/tensor/view.hpp>

#include <initializer_list>
#include <vector>

namespace dsx {

template <class T>
class Tensor {
 public:
  Tensor() = default;
  /// Zeroed.
  explicit Tensor(Shape shape) : shape_{shape}, elements_(shape.size()) {}
  /// Row by row; dsx-E301 if their number isn't the shape's.
  Tensor(Shape shape, std::initializer_list<T> elements) : shape_{shape}, elements_{elements} {
    if (elements_.size() != shape.size()) fail<301>("a tensor of ", shape.rows, " x ", shape.columns, " from ", elements_.size(), " elements");
  }
  /// A copy of what a view shows, converted; dsx-E301 if it shows nothing.
  explicit Tensor(const View& from) : Tensor{from.shape} {
    if (!from.data && from.size() > 0) fail<301>("a tensor from a view of ", from.shape.rows, " x ", from.shape.columns, " without data");
    dispatch(from.element, [&](auto zero) {
      const auto* elements = from.pointer<decltype(zero)>();
      for (Extent i = 0; i < elements_.size(); ++i) elements_[i] = T(Wide<T>(elements[i]));
    });
  }

  const Shape& shape() const { return shape_; }
  T& operator()(Extent row, Extent column) { return elements_[row * shape_.columns + column]; }
  const T& operator()(Extent row, Extent column) const { return elements_[row * shape_.columns + column]; }
  std::span<T> elements() { return elements_; }
  std::span<const T> elements() const { return elements_; }
  /// Valid until the tensor moves or ends.
  View view() { return {elements_.data(), shape_, element_of<T>}; }

 private:
  Shape shape_{};
  std::vector<T> elements_{};
};

}  // namespace dsx
