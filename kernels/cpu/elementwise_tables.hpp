// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Tables of the elementwise loops; elementwise_body.hpp fills them for each instruction set.
///
///     pick<ElementwiseBody<T>>().add(a, b, y, n);
///     pick<GradBody<T, G>>().gelu_pullback(x, dy, dx, n, form, accumulate);
///     pick<ConvertBody<From, To>>().convert(from, to, n, accumulate);
#pragma once

#include "philox.hpp"

#include <dsx/kernels/elementwise.hpp>

namespace dsx::kernels {

template <class T>
struct ElementwiseBody {
  void (*scale)(const T* x, Wide<T> factor, T* y, std::size_t n);
  void (*add)(const T* a, const T* b, T* y, std::size_t n);
  void (*gelu)(const T* x, T* y, std::size_t n, Gelu form);
  static const ElementwiseBody v3, v4;
};

template <class T, class G>
struct GradBody {
  void (*gelu_pullback)(const T* x, const T* dy, G* dx, std::size_t n, Gelu form, bool accumulate);
  /// Columns [begin, end) of an R x C matrix, summed over its rows.
  void (*column_sums)(const T* dy, G* sums, std::size_t rows, std::size_t columns, std::size_t begin, std::size_t end, bool accumulate);
  void (*dropout)(const T* x, G* y, std::size_t n, std::uint64_t row, std::uint32_t first_column, const Draw& draw, Wide<T> factor, bool accumulate);
  static const GradBody v3, v4;
};

template <class From, class To>
struct ConvertBody {
  void (*convert)(const From* from, To* to, std::size_t n, bool accumulate);
  static const ConvertBody v3, v4;
};

template <>
const ElementwiseBody<float> ElementwiseBody<float>::v3;
template <>
const ElementwiseBody<float> ElementwiseBody<float>::v4;
template <>
const ElementwiseBody<double> ElementwiseBody<double>::v3;
template <>
const ElementwiseBody<double> ElementwiseBody<double>::v4;
template <>
const ElementwiseBody<bf16> ElementwiseBody<bf16>::v3;
template <>
const ElementwiseBody<bf16> ElementwiseBody<bf16>::v4;
template <>
const GradBody<float, float> GradBody<float, float>::v3;
template <>
const GradBody<float, float> GradBody<float, float>::v4;
template <>
const GradBody<double, double> GradBody<double, double>::v3;
template <>
const GradBody<double, double> GradBody<double, double>::v4;
template <>
const GradBody<bf16, bf16> GradBody<bf16, bf16>::v3;
template <>
const GradBody<bf16, bf16> GradBody<bf16, bf16>::v4;
template <>
const GradBody<bf16, float> GradBody<bf16, float>::v3;
template <>
const GradBody<bf16, float> GradBody<bf16, float>::v4;
template <>
const ConvertBody<float, float> ConvertBody<float, float>::v3;
template <>
const ConvertBody<float, float> ConvertBody<float, float>::v4;
template <>
const ConvertBody<float, double> ConvertBody<float, double>::v3;
template <>
const ConvertBody<float, double> ConvertBody<float, double>::v4;
template <>
const ConvertBody<float, bf16> ConvertBody<float, bf16>::v3;
template <>
const ConvertBody<float, bf16> ConvertBody<float, bf16>::v4;
template <>
const ConvertBody<double, float> ConvertBody<double, float>::v3;
template <>
const ConvertBody<double, float> ConvertBody<double, float>::v4;
template <>
const ConvertBody<double, double> ConvertBody<double, double>::v3;
template <>
const ConvertBody<double, double> ConvertBody<double, double>::v4;
template <>
const ConvertBody<double, bf16> ConvertBody<double, bf16>::v3;
template <>
const ConvertBody<double, bf16> ConvertBody<double, bf16>::v4;
template <>
const ConvertBody<bf16, float> ConvertBody<bf16, float>::v3;
template <>
const ConvertBody<bf16, float> ConvertBody<bf16, float>::v4;
template <>
const ConvertBody<bf16, double> ConvertBody<bf16, double>::v3;
template <>
const ConvertBody<bf16, double> ConvertBody<bf16, double>::v4;
template <>
const ConvertBody<bf16, bf16> ConvertBody<bf16, bf16>::v3;
template <>
const ConvertBody<bf16, bf16> ConvertBody<bf16, bf16>::v4;

}  // namespace dsx::kernels
