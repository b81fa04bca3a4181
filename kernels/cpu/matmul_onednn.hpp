// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Matrix products by oneDNN, whose primitives are compiled for a shape and kept for the next call of that shape.
///
///     const Extent bytes = onednn_space(shape);                       // nothing where oneDNN has no such product
///     if (!onednn_product(shape, form, {a, b, bias, c}, scratch)) ...  // then somebody else has to
///
/// Each thread that calls has a bounded store of its own, so ranks that are threads don't meet.
#pragma once

#include <dsx/kernels/matmul.hpp>

#include <optional>

namespace dsx::kernels {

/// What a plan knows of a product: plain matrices of M x K and K x N, maybe transposed as they lie.
struct ProductShape {
  Extent m, n, k;
  Element operands, result;
  bool a_transposed, b_transposed;
  bool operator==(const ProductShape&) const = default;
};

/// What a primitive is compiled for beyond that. GELU belongs to it where C itself becomes gelu(a b + bias).
struct ProductForm {
  bool accumulate = false;
  std::optional<Element> bias;
  std::optional<Gelu> gelu;
  bool operator==(const ProductForm&) const = default;
};

struct ProductData {
  void *a, *b, *bias, *c;
};

/// Bytes that a product of this shape needs in any of its forms.
Extent onednn_space(const ProductShape& shape);
/// Whether oneDNN has computed the product: not without such a primitive, and not with less space than its form needs.
bool onednn_product(const ProductShape& shape, const ProductForm& form, const ProductData& data, View scratch);

}  // namespace dsx::kernels
