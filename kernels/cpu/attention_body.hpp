// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Causal attention of one head, block by block, compiled once for each instruction set.
///
///     pick<AttentionBody<T>>().forward(task);                        // one block of queries over all keys before them
///     pick<AttentionGrad<T, G>>().pullback(task);                    // one key_value head of one sequence, with the query heads that share it
///
/// Tiles of queries, keys, values and scores lie on the stack; a tile is widened (and transposed where it must be) while it is packed.
#pragma once

#include "philox.hpp"
#include "tile.hpp"

#include <dsx/kernels/attention.hpp>

namespace dsx::kernels {

/// Elements of a packed tile: 64 rows of up to 128 channels, 32 of up to 256, 16 of up to 512.
inline constexpr std::size_t attention_tile = 8192, widest_head = 512;
DSX_INLINE constexpr std::size_t attention_block(std::size_t dim) { return dim <= 128 ? 64 : dim <= 256 ? 32 : 16; }
/// Channels of a packed row: whole packs of every instruction set.
DSX_INLINE constexpr std::size_t padded_head(std::size_t dim) { return (dim + 15) / 16 * 16; }

/// Which of a head's probabilities are dropped: none unless there are ids, those of the task's rows of queries.
struct HeadDropout {
  const RowId* ids = nullptr;
  Draw draw{};
  std::uint32_t head = 0;  // among the model's
  double factor = 1;
};

template <class T>
struct AttentionTask {
  const T *query, *keys, *values;    // of this head; query: the first of the block's rows
  std::size_t query_row, key_row;    // elements from a row to the next
  std::size_t dim, queries, before;  // `before`: keys that precede the block's first query's own
  T* out;
  std::size_t out_row;
  Wide<T>* log_sums;  // may be null
  std::size_t log_sums_row;
  HeadDropout dropout{};
};

template <class T, class G>
struct AttentionGradTask {
  const T *query, *keys, *values;     // of the first row and the first query head of the group
  std::size_t row, dim, rows, heads;  // heads: query heads in the group
  const T *out, *dout;
  std::size_t out_row;
  const Wide<T>* log_sums;
  std::size_t log_sums_row;
  G *dquery, *dkeys, *dvalues;
  bool accumulate;
  Wide<T>* query_sums;  // heads x rows x padded_head(dim)
  Wide<T>* deltas;      // heads x rows
  Wide<T>* excesses;    // heads x rows
  HeadDropout dropout{};
};

template <class T>
struct AttentionBody {
  void (*forward)(const AttentionTask<T>& task);
  static const AttentionBody v3, v4;
};

template <class T, class G>
struct AttentionGrad {
  void (*pullback)(const AttentionGradTask<T, G>& task);
  static const AttentionGrad v3, v4;
};

namespace DSX_ISA {

template <class W>
struct alignas(64) HeadTile {
  W data[attention_tile];
};
template <class W>
struct alignas(64) ScoreTile {
  W data[64 * 64];
};

template <class W>
DSX_INLINE size_t packs_of(size_t n) {
  return (n + count_of<W> - 1) / count_of<W>;
}

/// For the keys first .. first + n of a query: 1 / (1 - rate), or 0 where the probability is dropped. Keys are numbered from the first of the
/// sequence, and `first` is a multiple of a tile's rows.
template <class W>
void draw(const HeadDropout& dropout, size_t query, size_t head, size_t first, size_t n, W* factors) {
  draw_factors(dropout.draw, dropout.ids[query], std::uint32_t(first), dropout.head + std::uint32_t(head), n, W(dropout.factor), factors);
}
template <class W>
DSX_INLINE void multiply(size_t n, const W* factors, W* row) {
  lanes<W>(n, [&](size_t j, auto some) { store(row + j, load<W>(row + j, some) * load<W>(factors + j, some), some); });
}

/// Rows of a diagonal tile come in bands of 4: a band needs only the keys up to its last row's own.
inline constexpr size_t band = 4;

template <class T>
void attention(const AttentionTask<T>& task) {
  using W = Wide<T>;
  const size_t dim = task.dim, padded = padded_head(dim), block = attention_block(dim), queries = task.queries;
  HeadTile<W> query, keys, values, out;
  ScoreTile<W> scores;
  W tops[64], sums[64];
  alignas(64) W factors[64];
  copy_rows<W>(task.query, task.query_row, queries, dim, query.data, padded, padded, W(1) / root_of(W(dim)));
  memset(out.data, 0, queries * padded * sizeof(W));
  for (size_t i = 0; i < queries; ++i) tops[i] = W(-HUGE_VAL), sums[i] = 0;
  const size_t last = task.before + queries;
  for (size_t first = 0; first < last; first += block) {
    const size_t count = last - first < block ? last - first : block;
    transpose<W>(task.keys + first * task.key_row, task.key_row, count, dim, keys.data, block);
    copy_rows<W>(task.values + first * task.key_row, task.key_row, count, dim, values.data, padded, padded);
    for (size_t begin = 0; begin < queries; begin += band) {
      const size_t end = begin + band < queries ? begin + band : queries;
      if (task.before + end <= first) continue;  // these queries precede all keys of the tile
      const size_t reach = task.before + end - first < count ? task.before + end - first : count;
      W* const band_scores = scores.data + begin * block;
      small_product<W>(end - begin, packs_of<W>(reach), dim, query.data + begin * padded, padded, 1, keys.data, block, band_scores, block, false);
      for (size_t i = begin; i < end; ++i) {
        W* const row = scores.data + i * block;
        const size_t seen = task.before + i + 1 <= first ? 0 : task.before + i + 1 - first;
        const size_t visible = seen < reach ? seen : reach;
        Pack<W> highest = spread(tops[i]);
        lanes<W>(visible, [&](size_t j, auto some) {
          const Pack<W> s = only<W>(load<W>(row + j, some), some, W(-HUGE_VAL));
          highest = s > highest ? s : highest;
        });
        const W top = largest<W>(highest);
        Pack<W> added{};
        lanes<W>(visible, [&](size_t j, auto some) {
          const Pack<W> p = only<W>(exp(load<W>(row + j, some) - top), some);
          added += p;
          store(row + j, p, Whole{});
        });
        if (task.dropout.ids) draw(task.dropout, i, 0, first, visible, factors), multiply(visible, factors, row);
        for (size_t j = packs_of<W>(visible) * count_of<W>; j < reach; ++j) row[j] = 0;
        const W shrink = visible ? exp_of(tops[i] - top) : W(1);
        sums[i] = sums[i] * shrink + sum<W>(added);
        tops[i] = top;
        if (first > 0 && shrink != W(1))
          for (size_t d = 0; d < padded; d += count_of<W>)
            store(out.data + i * padded + d, load<W>(out.data + i * padded + d, Whole{}) * shrink, Whole{});
      }
      small_product<W>(end - begin, packs_of<W>(dim), reach, band_scores, block, 1, values.data, padded, out.data + begin * padded, padded, true);
    }
  }
  for (size_t i = 0; i < queries; ++i) {
    const W factor = W(1) / sums[i];
    lanes<W>(dim, [&](size_t d, auto some) { store(task.out + i * task.out_row + d, load<W>(out.data + i * padded + d, some) * factor, some); });
    if (task.log_sums) task.log_sums[i * task.log_sums_row] = tops[i] + W(::log(double(sums[i])));
  }
}

template <class T, class G>
void attention_pullback(const AttentionGradTask<T, G>& task) {
  using W = Wide<T>;
  const size_t dim = task.dim, padded = padded_head(dim), block = attention_block(dim), rows = task.rows;
  const W factor = W(1) / root_of(W(dim));
  // What a change of the softmax's sum costs: dy . y of each row and head.
  for (size_t head = 0; head < task.heads; ++head)
    for (size_t r = 0; r < rows; ++r) {
      const size_t at = r * task.out_row + head * dim;
      Pack<W> products{};
      lanes<W>(dim, [&](size_t d, auto some) { products += load<W>(task.out + at + d, some) * load<W>(task.dout + at + d, some); });
      task.deltas[head * rows + r] = sum<W>(products);
    }

  HeadTile<W> query, dout, keys, keys_across, values_across, dkeys, dvalues;
  ScoreTile<W> scores, slopes;
  alignas(64) W factors[64];
  for (size_t first = 0; first < rows; first += block) {
    const size_t count = rows - first < block ? rows - first : block;
    copy_rows<W>(task.keys + first * task.row, task.row, count, dim, keys.data, padded, padded);
    transpose<W>(task.keys + first * task.row, task.row, count, dim, keys_across.data, block);
    transpose<W>(task.values + first * task.row, task.row, count, dim, values_across.data, block);
    memset(dkeys.data, 0, count * padded * sizeof(W)), memset(dvalues.data, 0, count * padded * sizeof(W));
    for (size_t head = 0; head < task.heads; ++head) {
      W* const query_sums = task.query_sums + head * rows * padded;
      for (size_t begin = first; begin < rows; begin += block) {
        const size_t queries = rows - begin < block ? rows - begin : block;
        const bool diagonal = begin == first;
        copy_rows<W>(task.query + begin * task.row + head * dim, task.row, queries, dim, query.data, padded, padded, factor);
        copy_rows<W>(task.dout + begin * task.out_row + head * dim, task.out_row, queries, dim, dout.data, padded, padded);
        for (size_t top = 0; top < queries; top += band) {
          const size_t bottom = top + band < queries ? top + band : queries;
          const size_t reach = diagonal ? bottom : count;
          small_product<W>(bottom - top, packs_of<W>(reach), dim, query.data + top * padded, padded, 1, keys_across.data, block,
                           scores.data + top * block, block, false);
          small_product<W>(bottom - top, packs_of<W>(reach), dim, dout.data + top * padded, padded, 1, values_across.data, block,
                           slopes.data + top * block, block, false);
          for (size_t i = top; i < bottom; ++i) {
            W* const probabilities = scores.data + i * block;
            W* const slope = slopes.data + i * block;
            const W log_sum = task.log_sums[(begin + i) * task.log_sums_row + head], delta = task.deltas[head * rows + begin + i];
            const size_t visible = diagonal ? i + 1 : count;
            if (task.dropout.ids) draw(task.dropout, begin + i, head, first, visible, factors), multiply(visible, factors, slope);
            Pack<W> mass{}, slopes_sum{};
            lanes<W>(visible, [&](size_t j, auto some) {
              const Pack<W> p = only<W>(exp(load<W>(probabilities + j, some) - log_sum), some);
              const Pack<W> s = p * (only<W>(load<W>(slope + j, some), some) - delta);
              store(probabilities + j, p, Whole{}), store(slope + j, s, Whole{});
              mass += p, slopes_sum += s;
            });
            // A softmax's slopes sum to zero; a row's do so but for rounding, mostly that of its y in delta. The diagonal tile, a row's last,
            // makes up for it, else the bias of keys would learn from noise: its gradient is zero.
            W& excess = task.excesses[head * rows + begin + i];
            excess = sum<W>(slopes_sum) + (first > 0 ? excess : W(0));
            if (const W share = diagonal ? excess / sum<W>(mass) : W(0); share != 0 && __builtin_isfinite(share))
              lanes<W>(visible,
                       [&](size_t j, auto some) { store(slope + j, load<W>(slope + j, some) - load<W>(probabilities + j, some) * share, some); });
            if (task.dropout.ids) multiply(visible, factors, probabilities);
            for (size_t j = packs_of<W>(visible) * count_of<W>; j < packs_of<W>(reach) * count_of<W>; ++j) probabilities[j] = slope[j] = 0;
          }
          small_product<W>(bottom - top, packs_of<W>(dim), reach, slopes.data + top * block, block, 1, keys.data, padded,
                           query_sums + (begin + top) * padded, padded, first > 0);
        }
        // On the diagonal a band of keys is seen by its own band of queries (which holds zeros beyond each row) and later ones only.
        for (size_t k = 0; k < count; k += band) {
          const size_t end = k + band < count ? k + band : count, from = diagonal ? k : 0;
          small_product<W>(end - k, packs_of<W>(dim), queries - from, scores.data + from * block + k, 1, block, dout.data + from * padded, padded,
                           dvalues.data + k * padded, padded, true);
          small_product<W>(end - k, packs_of<W>(dim), queries - from, slopes.data + from * block + k, 1, block, query.data + from * padded, padded,
                           dkeys.data + k * padded, padded, true);
        }
      }
    }
    for (size_t k = 0; k < count; ++k)
      lanes<W>(dim, [&](size_t d, auto some) {
        put(task.dkeys + (first + k) * task.row + d, load<W>(dkeys.data + k * padded + d, some), task.accumulate, some);
        put(task.dvalues + (first + k) * task.row + d, load<W>(dvalues.data + k * padded + d, some), task.accumulate, some);
      });
  }
  for (size_t head = 0; head < task.heads; ++head)
    for (size_t r = 0; r < rows; ++r)
      lanes<W>(dim, [&](size_t d, auto some) {
        put(task.dquery + r * task.row + head * dim + d, load<W>(task.query_sums + (head * rows + r) * padded + d, some) * factor, task.accumulate,
            some);
      });
}

}  // namespace DSX_ISA

#define DSX_BODY(T)                            \
  template <>                                  \
  const AttentionBody<T> AttentionBody<T>::v3; \
  template <>                                  \
  const AttentionBody<T> AttentionBody<T>::v4; \
  template <>                                  \
  const AttentionBody<T> AttentionBody<T>::DSX_ISA{DSX_ISA::attention<T>};
DSX_BODY(float)
DSX_BODY(double)
DSX_BODY(bf16)
#undef DSX_BODY

#define DSX_BODY(T, G)                               \
  template <>                                        \
  const AttentionGrad<T, G> AttentionGrad<T, G>::v3; \
  template <>                                        \
  const AttentionGrad<T, G> AttentionGrad<T, G>::v4; \
  template <>                                        \
  const AttentionGrad<T, G> AttentionGrad<T, G>::DSX_ISA{DSX_ISA::attention_pullback<T, G>};
DSX_BODY(float, float)
DSX_BODY(double, double)
DSX_BODY(bf16, bf16)
DSX_BODY(bf16, float)
#undef DSX_BODY

}  // namespace dsx::kernels
