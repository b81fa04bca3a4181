// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Causal attention on the host: blocks of queries over threads; for the pullback, key_value heads of sequences over threads.
#include "attention_body.hpp"
#include "support.hpp"

#include <memory>

namespace dsx::kernels {
namespace {

void check(std::string_view kernel, const View& qkv, const Heads& heads, const Sequences& sequences, const View& y) {
  const Extent rows = sequences.count() ? sequences.begin.back() : 0;
  if (heads.key_value == 0 || heads.query % heads.key_value != 0)
    fail<301>("kernels::", kernel, ": ", heads.query, " query heads can't share ", heads.key_value, " key and value heads equally");
  if (heads.dim == 0 || heads.dim > widest_head)
    fail<301>("kernels::", kernel, " knows heads of 1 to ", widest_head, " channels, not of ", heads.dim);
  if (qkv.shape.columns != heads.columns() || y.shape.columns != heads.query * heads.dim || qkv.shape.rows < rows || y.shape.rows < rows)
    fail<301>("kernels::", kernel, " got ", qkv.shape.rows, " x ", qkv.shape.columns, " queries, keys and values and ", y.shape.rows, " x ",
              y.shape.columns, " results for ", rows, " rows of ", heads.query, " + 2 x ", heads.key_value, " heads of ", heads.dim);
  same_element(kernel, qkv, y);
}

void check_log_sums(std::string_view kernel, const View& qkv, const Heads& heads, const View& log_sums_RH) {
  if (log_sums_RH.element != wide(qkv.element))
    fail<405>("kernels::", kernel, " keeps log sums of ", name_of(qkv.element), " heads as ", name_of(wide(qkv.element)), ", not as ",
              name_of(log_sums_RH.element));
  if (log_sums_RH.shape.columns != heads.query || log_sums_RH.shape.rows < qkv.shape.rows)
    fail<301>("kernels::", kernel, " got ", log_sums_RH.shape.rows, " x ", log_sums_RH.shape.columns, " log sums for ", qkv.shape.rows, " rows of ",
              heads.query, " heads");
}

/// Multiply-adds of all sequences together, as a measure of work.
Extent pairs(const Sequences& sequences, const Heads& heads) {
  Extent sum = 0;
  for (Extent s = 0; s < sequences.count(); ++s) sum += sequences[s].size() * sequences[s].size();
  return sum * heads.dim * heads.query;
}

/// f(sequence, head, block of queries) for each; the blocks of one sequence run last to first, for the last have most keys.
template <class F>
void for_blocks(const Sequences& sequences, Extent heads, Extent block, Extent work, const F& f) {
  Extent most = 0;
  for (Extent s = 0; s < sequences.count(); ++s) most = std::max(most, (sequences[s].size() + block - 1) / block);
  in_parallel(sequences.count() * heads * most, work, [&](Extent i) {
    const Extent sequence = i / (heads * most), head = i / most % heads, number = most - 1 - i % most;
    const Range rows = sequences[sequence];
    const Range queries{rows.begin + number * block, std::min(rows.end, rows.begin + (number + 1) * block)};
    if (queries.begin < queries.end) f(sequence, head, queries);
  });
}

HeadDropout dropout_of(const AttentionDropout& dropout, Extent row, const Heads& heads, Extent head) {
  if (dropout.rate == 0) return {};
  return {dropout.ids_R + row, draw_of(dropout.key, dropout.rate), std::uint32_t(heads.first + head), 1 / (1 - dropout.rate)};
}

}  // namespace

void attention(View qkv, const Heads& heads, const Sequences& sequences, View y, View log_sums_RH, const AttentionDropout& dropout) {
  on_host("attention", {qkv, y, log_sums_RH});
  check("attention", qkv, heads, sequences, y), check_log_sums("attention", qkv, heads, log_sums_RH);
  dispatch(qkv.element, [&](auto zero) {
    using T = decltype(zero);
    const auto& body = pick<AttentionBody<T>>();
    const Extent columns = heads.columns(), group = heads.query / heads.key_value;
    for_blocks(sequences, heads.query, attention_block(heads.dim), pairs(sequences, heads), [&](Extent s, Extent head, Range queries) {
      const Extent first = sequences[s].begin;
      const T* const row = qkv.pointer<T>() + first * columns;
      const T* const keys = row + (heads.query + head / group) * heads.dim;
      body.forward({.query = qkv.pointer<T>() + queries.begin * columns + head * heads.dim,
                    .keys = keys,
                    .values = keys + heads.key_value * heads.dim,
                    .query_row = columns,
                    .key_row = columns,
                    .dim = heads.dim,
                    .queries = queries.size(),
                    .before = queries.begin - first,
                    .out = y.pointer<T>() + queries.begin * y.shape.columns + head * heads.dim,
                    .out_row = y.shape.columns,
                    .log_sums = log_sums_RH.pointer<Wide<T>>() + queries.begin * heads.query + head,
                    .log_sums_row = heads.query,
                    .dropout = dropout_of(dropout, queries.begin, heads, head)});
    });
  });
}

void attention_cached(View qkv, const Heads& heads, const Sequences& sequences, std::span<const KeyValues> caches, View y) {
  on_host("attention_cached", {qkv, y});
  check("attention_cached", qkv, heads, sequences, y);
  if (caches.size() != sequences.count()) fail<301>("kernels::attention_cached got ", caches.size(), " caches for ", sequences.count(), " sequences");
  Extent work = 0;
  for (Extent s = 0; s < caches.size(); ++s) {
    const KeyValues& cache = caches[s];
    on_host("attention_cached", {cache.keys, cache.values});
    same_element("attention_cached", qkv, cache.keys, cache.values);
    const Extent width = heads.key_value * heads.dim;
    if (cache.length < sequences[s].size() || cache.keys.shape.columns != width || cache.values.shape.columns != width ||
        cache.keys.shape.rows < cache.length || cache.values.shape.rows < cache.length)
      fail<301>("kernels::attention_cached: a cache of ", cache.keys.shape.rows, " x ", cache.keys.shape.columns, " keys and ",
                cache.values.shape.rows, " x ", cache.values.shape.columns, " values can't hold ", cache.length, " rows of ", heads.key_value,
                " heads of ", heads.dim, ", the last ", sequences[s].size(), " of them new");
    work += sequences[s].size() * cache.length * heads.dim * heads.query;
  }
  dispatch(qkv.element, [&](auto zero) {
    using T = decltype(zero);
    const auto& body = pick<AttentionBody<T>>();
    const Extent columns = heads.columns(), group = heads.query / heads.key_value;
    for_blocks(sequences, heads.query, attention_block(heads.dim), work, [&](Extent s, Extent head, Range queries) {
      const KeyValues& cache = caches[s];
      const Extent past = cache.length - sequences[s].size();
      body.forward({.query = qkv.pointer<T>() + queries.begin * columns + head * heads.dim,
                    .keys = cache.keys.pointer<T>() + head / group * heads.dim,
                    .values = cache.values.pointer<T>() + head / group * heads.dim,
                    .query_row = columns,
                    .key_row = heads.key_value * heads.dim,
                    .dim = heads.dim,
                    .queries = queries.size(),
                    .before = past + queries.begin - sequences[s].begin,
                    .out = y.pointer<T>() + queries.begin * y.shape.columns + head * heads.dim,
                    .out_row = y.shape.columns,
                    .log_sums = nullptr,
                    .log_sums_row = 0});
    });
  });
}

Extent attention_scratch(Extent rows, const Heads& heads, Element element) {
  return rows * heads.query * (padded_head(heads.dim) + 2) * bytes_of(wide(element));
}

void attention_pullback(View qkv, const Heads& heads, const Sequences& sequences, View y, View log_sums_RH, View dy, Grad dqkv, View scratch,
                        const AttentionDropout& dropout) {
  on_host("attention_pullback", {qkv, y, log_sums_RH, dy, dqkv.view, scratch});
  check("attention_pullback", qkv, heads, sequences, y), check_log_sums("attention_pullback", qkv, heads, log_sums_RH);
  same_shape("attention_pullback", y, dy), same_shape("attention_pullback", qkv, dqkv.view), same_element("attention_pullback", y, dy);
  const Extent rows = sequences.count() ? sequences.begin.back() : 0, needed = attention_scratch(rows, heads, qkv.element);
  std::unique_ptr<std::byte[]> own;
  if (!scratch.data)
    own.reset(new std::byte[needed]);
  else if (scratch.bytes() < needed)
    fail<401>("kernels::attention_pullback needs ", needed, " bytes of scratch for ", rows, " rows, not ", scratch.bytes());
  std::byte* const space = own ? own.get() : scratch.pointer<std::byte>();
  dispatch_grad("attention_pullback", qkv.element, dqkv.view.element, [&](auto zero, auto grad_zero) {
    using T = decltype(zero);
    using G = decltype(grad_zero);
    const auto& body = pick<AttentionGrad<T, G>>();
    const Extent columns = heads.columns(), group = heads.query / heads.key_value, width = heads.query * heads.dim;
    Wide<T>* const query_sums = reinterpret_cast<Wide<T>*>(space);
    Wide<T>* const deltas = query_sums + rows * heads.query * padded_head(heads.dim);
    Wide<T>* const excesses = deltas + rows * heads.query;
    in_parallel(sequences.count() * heads.key_value, pairs(sequences, heads), [&](Extent i) {
      const Range mine = sequences[i / heads.key_value];
      const Extent pair = i % heads.key_value, head = pair * group;
      const Extent query = mine.begin * columns + head * heads.dim, key = mine.begin * columns + (heads.query + pair) * heads.dim;
      const Extent value = key + heads.key_value * heads.dim, out = mine.begin * width + head * heads.dim;
      body.pullback({.query = qkv.pointer<T>() + query,
                     .keys = qkv.pointer<T>() + key,
                     .values = qkv.pointer<T>() + value,
                     .row = columns,
                     .dim = heads.dim,
                     .rows = mine.size(),
                     .heads = group,
                     .out = y.pointer<T>() + out,
                     .dout = dy.pointer<T>() + out,
                     .out_row = width,
                     .log_sums = log_sums_RH.pointer<Wide<T>>() + mine.begin * heads.query + head,
                     .log_sums_row = heads.query,
                     .dquery = dqkv.view.pointer<G>() + query,
                     .dkeys = dqkv.view.pointer<G>() + key,
                     .dvalues = dqkv.view.pointer<G>() + value,
                     .accumulate = dqkv.accumulate,
                     .query_sums = query_sums + (mine.begin * heads.query + head * mine.size()) * padded_head(heads.dim),
                     .deltas = deltas + mine.begin * heads.query + head * mine.size(),
                     .excesses = excesses + mine.begin * heads.query + head * mine.size(),
                     .dropout = dropout_of(dropout, mine.begin, heads, head)});
    });
  });
}

}  // namespace dsx::kernels
