// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Matrix products: C (M x N) = or += A (M x K) B (K x N), each operand maybe transposed, with bias and GELU, or by groups of rows.
///
///     kernels::matmul({x_RC}, {weight_CH}, {y_RH, false}, {.bias_N = bias_H}, scratch);
///
/// Products on the host are Eigen's, cut over OpenMP's threads, or oneDNN's; matmul_library() says whose (docs/adr/0006). The bits of
/// Eigen's don't depend on the number of threads, those of oneDNN's in their rounding. No call of Eigen's allocates: packing space is the
/// caller's `scratch`, whose size matmul_scratch() tells. (Without scratch a call takes memory for itself, as tests do.)
#pragma once

#include <dsx/kernels/elementwise.hpp>
#include <dsx/tensor/view.hpp>

#include <span>
#include <string_view>

namespace dsx::kernels {

struct Matrix {
  View view{};
  bool transposed = false;
  Shape shape() const { return transposed ? Shape{view.shape.columns, view.shape.rows} : view.shape; }
};

/// What follows a product while it is warm: c = a b + bias, and activated = gelu(c) where asked for. `activated` may be c itself.
struct Epilogue {
  View bias_N{};
  View activated_MN{};
  Gelu form = Gelu::tanh;
};

enum class MatmulLibrary : std::uint8_t { eigen, onednn };
constexpr std::string_view name_of(MatmulLibrary library) { return library == MatmulLibrary::eigen ? "eigen" : "onednn"; }
/// Those of this build; Eigen is always there.
std::span<const MatmulLibrary> matmul_libraries();
/// Who multiplies operands of this element in this process: the one that DSX_MATMUL in the environment names, else oneDNN for bf16 on
/// processors with AMX, else Eigen. Doubles, groups of rows and whatever oneDNN has no primitive for are always Eigen's.
MatmulLibrary matmul_library(Element operands);

/// While one made with `true` lives, this thread's products are Eigen's, whose bits don't depend on the number of OpenMP threads.
class [[nodiscard]] FixedProducts {
 public:
  explicit FixedProducts(bool fixed);
  FixedProducts(const FixedProducts&) = delete;
  FixedProducts& operator=(const FixedProducts&) = delete;
  ~FixedProducts();

 private:
  bool before_;
};

void each_view(const Matrix& m, auto f) { f(m.view); }
void each_view(const Epilogue& e, auto f) { f(e.bias_N), f(e.activated_MN); }

/// A and B hold one element type; C holds the same or a wider one.
void matmul(const Matrix& a, const Matrix& b, Grad c, const Epilogue& epilogue = {}, View scratch = {});
/// Bytes of scratch that such a product needs, by shapes and element types alone (data may be null). The products of groups need no more
/// than one of all their rows; with less than that, but enough for one thread, a product runs on fewer threads.
Extent matmul_scratch(const Matrix& a, const Matrix& b, const View& c);

/// Group g: rows begin[g] .. begin[g + 1) of A times matrix g of a stack B (groups K x N below one another); groups may be empty. An
/// epilogue's bias has a row for each group.
void grouped_matmul(const Matrix& a, View b_GKN, bool b_transposed, std::span<const Extent> begin, Grad c, View scratch = {},
                    const Epilogue& epilogue = {});
/// The gradient of the stack: matrix g = or += transpose(A's rows of g) C's rows of g; an empty group is zeroed at first touch.
void grouped_matmul_weights(View a_MK, View dc_MN, std::span<const Extent> begin, Grad db_GKN, View scratch = {});

}  // namespace dsx::kernels

namespace dsx::reference {

/// c = or += a b (+ bias), element by element; transposed operands are read where they lie.
template <class T, class U>
void matmul(const T* a, bool a_transposed, const T* b, bool b_transposed, Extent m, Extent n, Extent k, U* c, bool accumulate,
            const T* bias_N = nullptr) {
  for (Extent i = 0; i < m; ++i)
    for (Extent j = 0; j < n; ++j) {
      double sum = accumulate ? double(c[i * n + j]) : 0;
      for (Extent l = 0; l < k; ++l) sum += double(a[a_transposed ? l * m + i : i * k + l]) * double(b[b_transposed ? j * k + l : l * n + j]);
      if (bias_N) sum += double(bias_N[j]);
      c[i * n + j] = U(Wide<U>(sum));
    }
}

}  // namespace dsx::reference
