// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Elementwise kernels on the host: each call dispatches on its elements once, then runs a loop of elementwise_body.hpp on several threads.
#include "elementwise_body.hpp"
#include "support.hpp"

#include "cuda/launchers.hpp"

#include <dsx/place/memory_resource.hpp>

namespace dsx::kernels {
namespace {

void convert(std::string_view kernel, const View& from, const View& to, bool accumulate) {
  on_host(kernel, {from, to});
  same_shape(kernel, from, to);
  dispatch(from.element, [&](auto from_zero) {
    dispatch(to.element, [&](auto to_zero) {
      using From = decltype(from_zero);
      using To = decltype(to_zero);
      const auto& body = pick<ConvertBody<From, To>>();
      in_ranges(from.size(), 1, [&](Range r) { body.convert(from.pointer<From>() + r.begin, to.pointer<To>() + r.begin, r.size(), accumulate); });
    });
  });
}

}  // namespace

void copy(View from, View to) {
  if (const Stream* s = gpu_stream("copy", {from, to})) return dsx::copy(to, from, *s);
  if (from.element != to.element) return convert("copy", from, to, false);
  on_host("copy", {from, to});
  same_shape("copy", from, to);
  const Extent each = bytes_of(from.element);
  in_ranges(from.size(), 1,
            [&](Range r) { std::memmove(to.pointer<std::byte>() + r.begin * each, from.pointer<std::byte>() + r.begin * each, r.size() * each); });
}

void copy_columns(View from, Range columns, View to, Range to_columns) {
  on_host("copy_columns", {from, to});
  const Extent each = bytes_of(from.element);
  for (Extent r = 0; r < from.shape.rows; ++r)
    std::memcpy(to.pointer<std::byte>() + (r * to.shape.columns + to_columns.begin) * each,
                from.pointer<std::byte>() + (r * from.shape.columns + columns.begin) * each, columns.size() * each);
}

void zero(View x) {
  if (const Stream* s = gpu_stream("zero", {x})) return fill(x.data, std::byte{0}, x.bytes(), *s);
  on_host("zero", {x});
  const Extent each = bytes_of(x.element);
  in_ranges(x.size(), 1, [&](Range r) { std::memset(x.pointer<std::byte>() + r.begin * each, 0, r.size() * each); });
}

void scale(View x, double factor, View y) {
  on_host("scale", {x, y});
  same_shape("scale", x, y), same_element("scale", x, y);
  dispatch(x.element, [&](auto zero) {
    using T = decltype(zero);
    const auto& body = pick<ElementwiseBody<T>>();
    in_ranges(x.size(), 1, [&](Range r) { body.scale(x.pointer<T>() + r.begin, Wide<T>(factor), y.pointer<T>() + r.begin, r.size()); });
  });
}

void add(View a, View b, View y) {
  on_host("add", {a, b, y});
  same_shape("add", a, b, y), same_element("add", a, b, y);
  dispatch(a.element, [&](auto zero) {
    using T = decltype(zero);
    const auto& body = pick<ElementwiseBody<T>>();
    in_ranges(a.size(), 1, [&](Range r) { body.add(a.pointer<T>() + r.begin, b.pointer<T>() + r.begin, y.pointer<T>() + r.begin, r.size()); });
  });
}

void pass_on(View from, Grad to) { convert("pass_on", from, to.view, to.accumulate); }

void add_bias(View x_RC, View bias_C, View y_RC) {
  on_host("add_bias", {x_RC, bias_C, y_RC});
  same_shape("add_bias", x_RC, y_RC), same_element("add_bias", x_RC, bias_C, y_RC);
  const Extent columns = x_RC.shape.columns;
  if (bias_C.size() != columns) fail<301>("kernels::add_bias got a bias of ", bias_C.size(), " for rows of ", columns);
  dispatch(x_RC.element, [&](auto zero) {
    using T = decltype(zero);
    const auto& body = pick<ElementwiseBody<T>>();
    in_ranges(x_RC.shape.rows, columns, [&](Range rows) {
      for (Extent r = rows.begin; r < rows.end; ++r)
        body.add(x_RC.pointer<T>() + r * columns, bias_C.pointer<T>(), y_RC.pointer<T>() + r * columns, columns);
    });
  });
}

void column_sums(View dy_RC, Grad dbias_C) {
  on_host("column_sums", {dy_RC, dbias_C.view});
  const Extent rows = dy_RC.shape.rows, columns = dy_RC.shape.columns;
  if (dbias_C.view.size() != columns) fail<301>("kernels::column_sums got ", dbias_C.view.size(), " sums for rows of ", columns);
  dispatch_grad("column_sums", dy_RC.element, dbias_C.view.element, [&](auto zero, auto grad_zero) {
    using T = decltype(zero);
    using G = decltype(grad_zero);
    const auto& body = pick<GradBody<T, G>>();
    // A thread takes whole columns, so that the order of additions is that of the rows.
    in_ranges(columns, rows,
              [&](Range r) { body.column_sums(dy_RC.pointer<T>(), dbias_C.view.pointer<G>(), rows, columns, r.begin, r.end, dbias_C.accumulate); });
  });
}

void gelu(View x, View y, Gelu form) {
  same_shape("gelu", x, y), same_element("gelu", x, y);
  if (const Stream* s = gpu_stream("gelu", {x, y})) return cuda::gelu(x, y, form, s->handle());
  dispatch(x.element, [&](auto zero) {
    using T = decltype(zero);
    const auto& body = pick<ElementwiseBody<T>>();
    in_ranges(x.size(), 8, [&](Range r) { body.gelu(x.pointer<T>() + r.begin, y.pointer<T>() + r.begin, r.size(), form); });
  });
}

void gelu_pullback(View x, View dy, Grad dx, Gelu form) {
  same_shape("gelu_pullback", x, dy, dx.view), same_element("gelu_pullback", x, dy);
  if (const Stream* s = gpu_stream("gelu_pullback", {x, dy, dx.view})) {
    same_element("gelu_pullback", x, dx.view);
    return cuda::gelu_pullback(x, dy, dx, form, s->handle());
  }
  dispatch_grad("gelu_pullback", x.element, dx.view.element, [&](auto zero, auto grad_zero) {
    using T = decltype(zero);
    using G = decltype(grad_zero);
    const auto& body = pick<GradBody<T, G>>();
    in_ranges(x.size(), 8, [&](Range r) {
      body.gelu_pullback(x.pointer<T>() + r.begin, dy.pointer<T>() + r.begin, dx.view.pointer<G>() + r.begin, r.size(), form, dx.accumulate);
    });
  });
}

void dropout(View x_RC, Grad y_RC, const RowId* ids_R, Extent first_column, double rate, const RandomKey& key) {
  on_host("dropout", {x_RC, y_RC.view});
  same_shape("dropout", x_RC, y_RC.view);
  const Draw draw = draw_of(key, rate);
  dispatch_grad("dropout", x_RC.element, y_RC.view.element, [&](auto zero, auto grad_zero) {
    using T = decltype(zero);
    using G = decltype(grad_zero);
    const auto& body = pick<GradBody<T, G>>();
    const Wide<T> factor = Wide<T>(1 / (1 - rate));
    const Extent columns = x_RC.shape.columns;
    in_ranges(x_RC.shape.rows, 4 * columns, [&](Range rows) {
      for (Extent r = rows.begin; r < rows.end; ++r)
        body.dropout(x_RC.pointer<T>() + r * columns, y_RC.view.pointer<G>() + r * columns, columns, ids_R[r], std::uint32_t(first_column), draw,
                     factor, y_RC.accumulate);
    });
  });
}

}  // namespace dsx::kernels
