// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Layer norm of rows and its pullbacks. Rows of up to 1,024 columns belong to a warp each, wider ones to a block each.
///
///     cuda::layer_norm(x_RC, gain_C, bias_C, 1e-5, y_RC, stats_R2, stream);
///     cuda::layer_norm_inputs(x_RC, gain_C, stats_R2, dy_RC, {dx_RC, true}, stream);
///     cuda::layer_norm_weights(x_RC, stats_R2, dy_RC, {dgain_C, false}, {dbias_C, false}, scratch, stream);
///
/// A row is read from memory once: while it fits, it stays in shared memory, where each thread finds only what it put there
/// itself, so that needs no barrier. The variance is summed from differences to the mean, not from squares.
#include "launchers.hpp"
#include "pack.hpp"

namespace dsx::cuda {
namespace {

constexpr int warp = 32;
constexpr Extent widest_for_a_warp = 1024;
constexpr int rows_of_warps = 4;      // rows in a block, one a warp
constexpr int block_team = 256;       // threads on one row
constexpr Extent row_bytes = 40 * 1024;  // of shared memory, for rows; the rest is for partial sums

/// A row in pieces: `team` threads walk over it, `width` columns at a time.
struct Sizes {
  Extent rows, columns;
  bool kept;  // rows stay in shared memory
};

template <class W>
struct Two {
  W first{}, second{};
};

template <class W>
__device__ W warp_sum(W value) {
  for (int distance = warp / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(0xFFFFFFFFU, value, distance);
  return value;
}

/// The sums over a team, known to each of its threads, in the same order on every device. A block passes one number a warp
/// through `partial`, at `slot`, which no other sum of the kernel uses.
template <int team, class W>
__device__ Two<W> team_sums(Two<W> sums, SharedArray<W> partial, int slot) {
  sums = {warp_sum(sums.first), warp_sum(sums.second)};
  if constexpr (team > warp) {
    constexpr int warps = team / warp;
    const int mine = int(threadIdx.x) / warp, base = slot * 2 * warps;
    if (threadIdx.x % warp == 0) {
      partial[base + mine] = sums.first;
      partial[base + warps + mine] = sums.second;
    }
    __syncthreads();
    sums = {};
    for (int w = 0; w < warps; ++w) {
      sums.first += partial[base + w];
      sums.second += partial[base + warps + w];
    }
  }
  return sums;
}

/// Shared numbers that the two sums of a kernel pass through.
template <int team>
constexpr int partials = team > warp ? 2 * 2 * team / warp : 1;

template <class T, class G, int team, int width>
__global__ void __launch_bounds__(team == warp ? rows_of_warps * warp : team)
    forward_kernel(const T* x, const G* gain, const G* bias, Wide<T> epsilon, T* y, Wide<T>* stats, Sizes sizes) {
  using W = Wide<T>;
  using Row = Pack<T, width>;
  DSX_SHARED(W, partials<team>, partial);
  DSX_DYNAMIC_SHARED(Row, keep);
  const int lane = int(threadIdx.x) % team, row_in_block = int(threadIdx.x) / team;
  const Extent row = Extent(blockIdx.x) * (blockDim.x / team) + row_in_block, packs = sizes.columns / width;
  if (row >= sizes.rows) return;  // a whole warp, or nobody
  const Row* const in = packs_of<width>(x + row * sizes.columns);
  const Extent kept_at = row_in_block * packs;

  Two<W> sums;
  for (Extent p = lane; p < packs; p += team) {
    const Row piece = in[p];
    if (sizes.kept) keep[kept_at + p] = piece;
    for (int e = 0; e < width; ++e) sums.first += widen(piece.at[e]);
  }
  const W mean = team_sums<team>(sums, partial, 0).first / W(sizes.columns);

  sums = {};
  for (Extent p = lane; p < packs; p += team) {
    const Row piece = sizes.kept ? keep[kept_at + p] : in[p];
    for (int e = 0; e < width; ++e) sums.first += (widen(piece.at[e]) - mean) * (widen(piece.at[e]) - mean);
  }
  const W reciprocal = 1 / root(team_sums<team>(sums, partial, 1).first / W(sizes.columns) + epsilon);

  for (Extent p = lane; p < packs; p += team) {
    const Row piece = sizes.kept ? keep[kept_at + p] : in[p];
    const Pack<G, width> g = packs_of<width>(gain)[p], b = packs_of<width>(bias)[p];
    Row out;
    for (int e = 0; e < width; ++e) out.at[e] = narrow<T>((widen(piece.at[e]) - mean) * reciprocal * W(widen(g.at[e])) + W(widen(b.at[e])));
    packs_of<width>(y + row * sizes.columns)[p] = out;
  }
  if (lane == 0) {
    stats[2 * row] = mean;
    stats[2 * row + 1] = reciprocal;
  }
}

/// With h = dy gain and n = (x - mean) reciprocal: dx = reciprocal (h - mean of h - n mean of (h n)).
template <class T, class G, int team, int width>
__global__ void __launch_bounds__(team == warp ? rows_of_warps * warp : team)
    inputs_kernel(const T* x, const G* gain, const Wide<T>* stats, const T* dy, T* dx, bool accumulate, Sizes sizes) {
  using W = Wide<T>;
  using Row = Pack<T, width>;
  DSX_SHARED(W, partials<team>, partial);
  DSX_DYNAMIC_SHARED(Row, keep);
  const int lane = int(threadIdx.x) % team, row_in_block = int(threadIdx.x) / team;
  const Extent row = Extent(blockIdx.x) * (blockDim.x / team) + row_in_block, packs = sizes.columns / width;
  if (row >= sizes.rows) return;
  const Row *const in = packs_of<width>(x + row * sizes.columns), *const incoming = packs_of<width>(dy + row * sizes.columns);
  const W mean = stats[2 * row], reciprocal = stats[2 * row + 1];
  const Extent kept_at = row_in_block * 2 * packs;  // x and dy by turns

  Two<W> sums;
  for (Extent p = lane; p < packs; p += team) {
    const Row piece = in[p], d = incoming[p];
    const Pack<G, width> g = packs_of<width>(gain)[p];
    if (sizes.kept) {
      keep[kept_at + 2 * p] = piece;
      keep[kept_at + 2 * p + 1] = d;
    }
    for (int e = 0; e < width; ++e) {
      const W h = widen(d.at[e]) * W(widen(g.at[e]));
      sums.first += h;
      sums.second += h * (widen(piece.at[e]) - mean) * reciprocal;
    }
  }
  sums = team_sums<team>(sums, partial, 0);
  const W mean_h = sums.first / W(sizes.columns), mean_hn = sums.second / W(sizes.columns);

  Row* const out = packs_of<width>(dx + row * sizes.columns);
  for (Extent p = lane; p < packs; p += team) {
    const Row piece = sizes.kept ? keep[kept_at + 2 * p] : in[p], d = sizes.kept ? keep[kept_at + 2 * p + 1] : incoming[p];
    const Pack<G, width> g = packs_of<width>(gain)[p];
    Row result;
    if (accumulate) result = out[p];
    for (int e = 0; e < width; ++e) {
      const W n = (widen(piece.at[e]) - mean) * reciprocal;
      const W value = reciprocal * (widen(d.at[e]) * W(widen(g.at[e])) - mean_h - n * mean_hn);
      result.at[e] = narrow<T>(accumulate ? widen(result.at[e]) + value : value);
    }
    out[p] = result;
  }
}

constexpr int lines = 8;             // rows that a block of the column sums reads at once, a warp on each
constexpr Extent rows_of_slab = 128;  // before a second slab pays
constexpr Extent most_slabs = 64;

/// The block's grid coordinate x names its columns, y its slab of rows. Sums go to scratch (one row of dgain's, one of dbias's a
/// slab), or, if a single slab covers all rows, to the gradients.
template <class G>
struct Gradients {
  G *gain, *bias;
  bool add_gain, add_bias;
  template <class W>
  __device__ void put(Extent column, W of_gain, W of_bias) const {
    gain[column] = narrow<G>(add_gain ? W(widen(gain[column])) + of_gain : of_gain);
    bias[column] = narrow<G>(add_bias ? W(widen(bias[column])) + of_bias : of_bias);
  }
};

template <class T, class G, int width>
__global__ void __launch_bounds__(warp * lines)
    column_sums_kernel(const T* x, const Wide<T>* stats, const T* dy, Wide<T>* scratch, Gradients<G> gradients, Extent rows, Extent columns) {
  using W = Wide<T>;
  constexpr int tile = warp * width;  // columns
  DSX_SHARED(W, lines * tile, of_gain);
  DSX_SHARED(W, lines * tile, of_bias);
  const int lane = int(threadIdx.x) % warp, line = int(threadIdx.x) / warp;
  const Extent column = Extent(blockIdx.x) * tile + lane * width;
  const Extent each = (rows + gridDim.y - 1) / gridDim.y, begin = blockIdx.y * each, end = begin + each < rows ? begin + each : rows;

  W gain_sums[width]{}, bias_sums[width]{};
  if (column < columns) {  // then the whole pack: width divides columns
    for (Extent row = begin + line; row < end; row += lines) {
      const Pack<T, width> piece = *packs_of<width>(x + row * columns + column), d = *packs_of<width>(dy + row * columns + column);
      const W mean = stats[2 * row], reciprocal = stats[2 * row + 1];
      for (int e = 0; e < width; ++e) {
        gain_sums[e] += widen(d.at[e]) * (widen(piece.at[e]) - mean) * reciprocal;
        bias_sums[e] += widen(d.at[e]);
      }
    }
  }
  for (int e = 0; e < width; ++e) {  // neighbouring lanes, neighbouring banks
    of_gain[(line * width + e) * warp + lane] = gain_sums[e];
    of_bias[(line * width + e) * warp + lane] = bias_sums[e];
  }
  __syncthreads();

  for (int c = int(threadIdx.x); c < tile; c += warp * lines) {
    const Extent mine = Extent(blockIdx.x) * tile + (c % warp) * width + c / warp;
    if (mine >= columns) continue;
    W gain_sum{}, bias_sum{};
    for (int l = 0; l < lines; ++l) {
      gain_sum += of_gain[l * tile + c];
      bias_sum += of_bias[l * tile + c];
    }
    if (gridDim.y == 1) {
      gradients.put(mine, gain_sum, bias_sum);
    } else {
      scratch[2 * blockIdx.y * columns + mine] = gain_sum;
      scratch[(2 * blockIdx.y + 1) * columns + mine] = bias_sum;
    }
  }
}

template <class W, class G>
__global__ void __launch_bounds__(block_team) slab_sums_kernel(const W* scratch, Gradients<G> gradients, Extent slabs, Extent columns) {
  const Extent column = Extent(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= columns) return;
  W gain_sum{}, bias_sum{};
  for (Extent slab = 0; slab < slabs; ++slab) {
    gain_sum += scratch[2 * slab * columns + column];
    bias_sum += scratch[(2 * slab + 1) * columns + column];
  }
  gradients.put(column, gain_sum, bias_sum);
}

/// Calls f(T, G) with the element of rows and that of gain and bias.
template <class F>
void dispatch_two(Element rows, Element weights, F f) {
  dispatch(rows, [&](auto zero) {
    using T = decltype(zero);
    if (weights == rows) return f(T{}, T{});
    if constexpr (std::is_same_v<T, bf16>)
      if (weights == Element::f32) return f(T{}, float{});
    fail<405>("layer norm on the GPU has no kernel for ", name_of(rows), " rows beside ", name_of(weights), " gain and bias");
  });
}

/// How a row kernel is launched that keeps `arrays` rows of `columns` elements of T.
template <class T>
struct Plan {
  bool by_warp, kept;
  dim3 grid, block;
  Extent shared_bytes;
  Plan(Shape shape, Extent arrays)
      : by_warp{shape.columns <= widest_for_a_warp}, block{unsigned(by_warp ? rows_of_warps * warp : block_team)} {
    const Extent rows_of_block = by_warp ? rows_of_warps : 1, bytes = rows_of_block * arrays * shape.columns * sizeof(T);
    kept = bytes <= row_bytes;
    shared_bytes = kept ? bytes : 0;
    grid = dim3(unsigned((shape.rows + rows_of_block - 1) / rows_of_block));
  }
};

/// Calls f(team, width) as compile-time integers.
template <class T, class F>
void choose(bool by_warp, bool packed, F f) {
  constexpr auto wide = std::integral_constant<int, full_width<T>>{};
  constexpr auto one = std::integral_constant<int, 1>{};
  constexpr auto of_warp = std::integral_constant<int, warp>{};
  constexpr auto of_block = std::integral_constant<int, block_team>{};
  if (by_warp) packed ? f(of_warp, wide) : f(of_warp, one);
  else packed ? f(of_block, wide) : f(of_block, one);
}

}  // namespace

void layer_norm(View x, View gain, View bias, double epsilon, View y, View stats, StreamHandle stream) {
  if (x.size() == 0) return;
  dispatch_two(x.element, gain.element, [&](auto row_zero, auto weight_zero) {
    using T = decltype(row_zero);
    using G = decltype(weight_zero);
    constexpr int full = full_width<T>;
    const Plan<T> plan{x.shape, 1};
    const bool packed = x.shape.columns % full == 0 && aligned<full>(x.address<T>()) && aligned<full>(y.address<T>()) &&
                        aligned<full>(gain.address<G>()) && aligned<full>(bias.address<G>());
    choose<T>(plan.by_warp, packed, [&](auto team, auto width) {
      launch(forward_kernel<T, G, team(), width()>, plan.grid, plan.block, plan.shared_bytes, stream, x.address<T>(), gain.address<G>(),
             bias.address<G>(), Wide<T>(epsilon), y.address<T>(), stats.address<Wide<T>>(), Sizes{x.shape.rows, x.shape.columns, plan.kept});
    });
  });
}

void layer_norm_inputs(View x, View gain, View stats, View dy, Grad dx, StreamHandle stream) {
  if (x.size() == 0) return;
  dispatch_two(x.element, gain.element, [&](auto row_zero, auto weight_zero) {
    using T = decltype(row_zero);
    using G = decltype(weight_zero);
    constexpr int full = full_width<T>;
    const Plan<T> plan{x.shape, 2};
    const bool packed = x.shape.columns % full == 0 && aligned<full>(x.address<T>()) && aligned<full>(dy.address<T>()) &&
                        aligned<full>(dx.view.address<T>()) && aligned<full>(gain.address<G>());
    choose<T>(plan.by_warp, packed, [&](auto team, auto width) {
      launch(inputs_kernel<T, G, team(), width()>, plan.grid, plan.block, plan.shared_bytes, stream, x.address<T>(), gain.address<G>(),
             stats.address<Wide<T>>(), dy.address<T>(), dx.view.address<T>(), dx.accumulate, Sizes{x.shape.rows, x.shape.columns, plan.kept});
    });
  });
}

Shape layer_norm_scratch(Shape x) {
  const Extent slabs = std::min((x.rows + rows_of_slab - 1) / rows_of_slab, most_slabs);
  return slabs > 1 ? Shape{2 * slabs, x.columns} : Shape{};
}

void layer_norm_weights(View x, View stats, View dy, Grad dgain, Grad dbias, View scratch, StreamHandle stream) {
  if (x.shape.columns == 0) return;
  dispatch_two(x.element, dgain.view.element, [&](auto row_zero, auto weight_zero) {
    using T = decltype(row_zero);
    using G = decltype(weight_zero);
    using W = Wide<T>;
    constexpr int full = full_width<T>;
    const Extent columns = x.shape.columns, slabs = scratch.data ? std::max<Extent>(layer_norm_scratch(x.shape).rows / 2, 1) : 1;
    const Gradients<G> gradients{dgain.view.address<G>(), dbias.view.address<G>(), dgain.accumulate, dbias.accumulate};
    const bool packed = columns % full == 0 && aligned<full>(x.address<T>()) && aligned<full>(dy.address<T>());
    const auto first_stage = [&](auto width) {
      constexpr Extent tile = warp * width();
      launch(column_sums_kernel<T, G, width()>, dim3(unsigned((columns + tile - 1) / tile), unsigned(slabs)), dim3(warp * lines), 0, stream,
             x.address<T>(), stats.address<W>(), dy.address<T>(), scratch.address<W>(), gradients, x.shape.rows, columns);
    };
    if (packed) first_stage(std::integral_constant<int, full>{});
    else first_stage(std::integral_constant<int, 1>{});
    if (slabs > 1)
      launch(slab_sums_kernel<W, G>, dim3(unsigned((columns + block_team - 1) / block_team)), dim3(block_team), 0, stream, scratch.address<W>(),
             gradients, slabs, columns);
  });
}

}  // namespace dsx::cuda
