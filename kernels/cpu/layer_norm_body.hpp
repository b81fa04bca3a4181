// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Loops of layer normalisation, compiled once for each instruction set.
///
///     pick<LayerNormBody<T>>().forward(x, gain, bias, epsilon, y, stats, rows, columns);
///     pick<LayerNormGrad<T, G>>().inputs(x, gain, stats, dy, dx, rows, columns, accumulate);
#pragma once

#include "simd.hpp"

namespace dsx::kernels {

template <class T>
struct LayerNormBody {
  void (*forward)(const T* x, const T* gain, const T* bias, double epsilon, T* y, Wide<T>* stats, std::size_t rows, std::size_t columns);
  static const LayerNormBody v3, v4;
};

template <class T, class G>
struct LayerNormGrad {
  void (*inputs)(const T* x, const T* gain, const Wide<T>* stats, const T* dy, G* dx, std::size_t rows, std::size_t columns, bool accumulate);
  /// Columns [begin, end).
  void (*weights)(const T* x, const Wide<T>* stats, const T* dy, G* dgain, bool add_gain, G* dbias, bool add_bias, std::size_t rows,
                  std::size_t columns, std::size_t begin, std::size_t end);
  static const LayerNormGrad v3, v4;
};

namespace DSX_ISA {

template <class T>
void layer_norm(const T* x, const T* gain, const T* bias, double epsilon, T* y, Wide<T>* stats, size_t rows, size_t columns) {
  using W = Wide<T>;
  const W share = W(1) / W(columns);
  for (size_t r = 0; r < rows; ++r, x += columns, y += columns, stats += 2) {
    Pack<W> sums{};
    lanes<W>(columns, [&](size_t i, auto some) { sums += load<W>(x + i, some); });
    const W mean = sum<W>(sums) * share;
    Pack<W> squares{};
    lanes<W>(columns, [&](size_t i, auto some) {
      const Pack<W> d = only<W>(load<W>(x + i, some) - mean, some);
      squares += d * d;
    });
    const W deviation = W(1) / root_of(sum<W>(squares) * share + W(epsilon));
    lanes<W>(columns, [&](size_t i, auto some) {
      store(y + i, (load<W>(x + i, some) - mean) * deviation * load<W>(gain + i, some) + load<W>(bias + i, some), some);
    });
    stats[0] = mean, stats[1] = deviation;
  }
}

template <class T, class G>
void layer_norm_inputs(const T* x, const T* gain, const Wide<T>* stats, const T* dy, G* dx, size_t rows, size_t columns, bool accumulate) {
  using W = Wide<T>;
  const W share = W(1) / W(columns);
  for (size_t r = 0; r < rows; ++r, x += columns, dy += columns, dx += columns, stats += 2) {
    const W mean = stats[0], deviation = stats[1];
    Pack<W> sums{}, products{};
    lanes<W>(columns, [&](size_t i, auto some) {
      const Pack<W> g = load<W>(dy + i, some) * load<W>(gain + i, some);
      sums += g;
      products += g * (load<W>(x + i, some) - mean);
    });
    const W middle = sum<W>(sums) * share, slope = sum<W>(products) * share * deviation * deviation;
    lanes<W>(columns, [&](size_t i, auto some) {
      const Pack<W> g = load<W>(dy + i, some) * load<W>(gain + i, some);
      put(dx + i, (g - middle - (load<W>(x + i, some) - mean) * slope) * deviation, accumulate, some);
    });
  }
}

template <class T, class G>
void layer_norm_weights(const T* x, const Wide<T>* stats, const T* dy, G* dgain, bool add_gain, G* dbias, bool add_bias, size_t rows, size_t columns,
                        size_t begin, size_t end) {
  using W = Wide<T>;
  stripes<W>(begin, end, [&]<size_t Packs>(size_t column, auto some, Count<Packs>) {
    Pack<W> gains[Packs]{}, biases[Packs]{};
    in_short_chains(rows, [&](size_t first, size_t last) {
      Pack<W> gain_part[Packs]{}, bias_part[Packs]{};
      for (size_t r = first; r < last; ++r) {
        const W mean = stats[2 * r], deviation = stats[2 * r + 1];
        for (size_t p = 0; p < Packs; ++p) {
          const size_t at = r * columns + column + p * count_of<W>;
          const Pack<W> g = load<W>(dy + at, some);
          gain_part[p] += g * ((load<W>(x + at, some) - mean) * deviation);
          bias_part[p] += g;
        }
      }
      for (size_t p = 0; p < Packs; ++p) gains[p] += gain_part[p], biases[p] += bias_part[p];
    });
    for (size_t p = 0; p < Packs; ++p) {
      put(dgain + column + p * count_of<W>, gains[p], add_gain, some);
      put(dbias + column + p * count_of<W>, biases[p], add_bias, some);
    }
  });
}

}  // namespace DSX_ISA

#define DSX_BODY(T)                            \
  template <>                                  \
  const LayerNormBody<T> LayerNormBody<T>::v3; \
  template <>                                  \
  const LayerNormBody<T> LayerNormBody<T>::v4; \
  template <>                                  \
  const LayerNormBody<T> LayerNormBody<T>::DSX_ISA{DSX_ISA::layer_norm<T>};
DSX_BODY(float)
DSX_BODY(double)
DSX_BODY(bf16)
#undef DSX_BODY

#define DSX_BODY(T, G)                               \
  template <>                                        \
  const LayerNormGrad<T, G> LayerNormGrad<T, G>::v3; \
  template <>                                        \
  const LayerNormGrad<T, G> LayerNormGrad<T, G>::v4; \
  template <>                                        \
  const LayerNormGrad<T, G> LayerNormGrad<T, G>::DSX_ISA{DSX_ISA::layer_norm_inputs<T, G>, DSX_ISA::layer_norm_weights<T, G>};
DSX_BODY(float, float)
DSX_BODY(double, double)
DSX_BODY(bf16, bf16)
DSX_BODY(bf16, float)
#undef DSX_BODY

}  // namespace dsx::kernels
