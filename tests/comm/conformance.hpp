// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What every transport owes its callers. Run by each rank, with the transport that sees all ranks.
///
///     run_threads(4, [](std::shared_ptr<Transport> world) { conformance::all(world); });
#pragma once

#include <dsx/comm/launch.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

namespace dsx::conformance {

using World = std::shared_ptr<Transport>;

/// Small integers, whose sums no order changes and bf16 holds, or where `odd` fractions, whose sums depend on the order.
template <class T>
T value(Rank rank, Extent i, bool odd = false) {
  const auto hash = (i + 1) * 2'654'435'761U + (rank + 1) * 40'503U;
  if constexpr (std::is_integral_v<T>) return T(hash % 17);
  else return odd ? T(double(hash % 10'007) * 0.37 - 1'234.5 * double(rank)) : T(float(hash % 9) - 4);
}
template <class T>
std::vector<T> values(Rank rank, Extent n, bool odd = false) {
  std::vector<T> x(n);
  for (Extent i = 0; i < n; ++i) x[i] = value<T>(rank, i, odd);
  return x;
}
template <class T>
View view(std::vector<T>& x, Shape shape, Element element = element_of<T>) { return {x.data(), shape, element}; }
template <class T>
View view(std::vector<T>& x) { return view(x, {x.size(), 1}); }

/// The sum or maximum over ranks in their order, bf16 in float.
template <class T>
std::vector<T> combined(Extent ranks, Extent n, Combine combine, bool odd = false) {
  using Accumulator = std::conditional_t<std::is_same_v<T, bf16>, float, T>;
  std::vector<T> result(n);
  for (Extent i = 0; i < n; ++i) {
    Accumulator sum = Accumulator(value<T>(0, i, odd));
    for (Rank r = 1; r < ranks; ++r) {
      const Accumulator x = Accumulator(value<T>(r, i, odd));
      sum = combine == Combine::max ? std::max(sum, x) : sum + x;
    }
    result[i] = T(sum);
  }
  return result;
}
template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {  // to the last bit
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}
template <class T>
std::vector<T> rows_of(const std::vector<T>& x, Extent columns, Range rows) {
  return {x.begin() + std::ptrdiff_t(rows.begin * columns), x.begin() + std::ptrdiff_t(rows.end * columns)};
}

/// Sums and maxima of every form of buffer.
template <class T>
void reductions(const World& world, Extent rows, Extent columns, bool odd) {
  const Communicator all{world, Axes::data};
  const Rank rank = all.rank();
  const Extent n = rows * columns;
  const Range mine = all.part(rows);
  for (const Combine combine : {Combine::sum, Combine::max}) {
    auto x = values<T>(rank, n, odd);
    all.all_reduce(view(x), combine).wait();
    CHECK(same(x, combined<T>(all.size(), n, combine, odd)));
    auto in = values<T>(rank, n, odd), out = std::vector<T>(n);
    Lease{*world, world->post({Verb::all_reduce, view(in), view(out), combine, 0, Axes::data, Site::current()})}.wait();
    CHECK(same(out, x));
    CHECK(same(in, values<T>(rank, n, odd)));
  }
  const auto sum = combined<T>(all.size(), n, Combine::sum, odd);
  const auto my_sum = rows_of(sum, columns, mine);

  auto in = values<T>(rank, n, odd), out = std::vector<T>(my_sum.size());
  all.reduce_scatter(view(in, {rows, columns}), view(out, {mine.size(), columns})).wait();
  CHECK(same(out, my_sum));
  CHECK(same(in, values<T>(rank, n, odd)));
  all.reduce_scatter(view(in, {rows, columns}), view(in, {rows, columns}).rows(mine)).wait();
  CHECK(same(rows_of(in, columns, mine), my_sum));

  // all_reduce is reduce_scatter, then all_gather: to the last bit.
  all.all_gather(view(in, {rows, columns}).rows(mine), view(in, {rows, columns})).wait();
  CHECK(same(in, sum));
  std::vector<T> whole(n);
  all.all_gather(view(out, {mine.size(), columns}), view(whole, {rows, columns})).wait();
  CHECK(same(whole, sum));
}

/// Moving needs no arithmetic: any element.
template <class T>
void movements(const World& world, Extent rows, Extent columns, Element element) {
  const Communicator all{world, Axes::data};
  const Rank rank = all.rank();
  const Extent n = rows * columns, ranks = all.size();
  std::vector<T> gathered(n), expected;
  for (Rank r = 0; r < ranks; ++r) {
    const auto part = values<T>(r, share({0, rows}, ranks, r).size() * columns);
    expected.insert(expected.end(), part.begin(), part.end());
  }
  auto own = values<T>(rank, all.part(rows).size() * columns);
  all.all_gather(view(own, {all.part(rows).size(), columns}, element), view(gathered, {rows, columns}, element)).wait();
  CHECK(same(gathered, expected));
  for (Rank root = 0; root < ranks; ++root) {
    auto x = values<T>(rank, n);
    all.broadcast(view(x, {rows, columns}, element), root).wait();
    CHECK(same(x, values<T>(root, n)));
  }
  if (ranks == 1) return;
  const Rank next = (rank + 1) % ranks, previous = (rank + ranks - 1) % ranks;
  auto sent = values<T>(rank, n), received = std::vector<T>(n);
  Lease send = all.send(view(sent, {rows, columns}, element), next);
  Lease receive = all.receive(view(received, {rows, columns}, element), previous);
  receive.wait();
  send.wait();
  CHECK(same(received, values<T>(previous, n)));
}

/// How many rows each rank sends to each: anything, nothing by some, nothing to some, all to one, or nothing at all.
struct Routes {
  Extent ranks = 1;
  std::uint64_t seed = 0;
  Extent operator()(Rank from, Rank to) const {
    std::uint64_t x = (seed * 64 + from) * 64 + to + 1;
    for (const std::uint64_t factor : {0xBF58476D1CE4E5B9ULL, 0x94D049BB133111EBULL}) x = (x ^ (x >> 29U)) * factor;
    const Extent rows = (x >> 40U) % 7;
    switch (seed % 6) {
      case 1: return from % 2 ? 0 : rows;
      case 2: return to % 2 ? rows : 0;
      case 3: return to == seed % ranks ? rows + 1 : 0;
      case 4: return seed < 6 ? 0 : rows * rows * 5;
      default: return rows;
    }
  }
  std::vector<Extent> sent_by(Rank from) const {
    std::vector<Extent> counts(ranks);
    for (Rank to = 0; to < ranks; ++to) counts[to] = (*this)(from, to);
    return counts;
  }
  std::vector<Extent> received_by(Rank to) const {
    std::vector<Extent> counts(ranks);
    for (Rank from = 0; from < ranks; ++from) counts[from] = (*this)(from, to);
    return counts;
  }
};
inline Extent sum_of(const std::vector<Extent>& counts) {
  Extent sum = 0;
  for (const Extent n : counts) sum += n;
  return sum;
}

/// One rank's buffers of an all-to-all, and what it must get. What lies beyond the live rows stays as it was.
template <class T>
struct Exchange {
  Exchange(Routes routes, Rank rank, Extent columns, Extent spare, Element of = element_of<T>)
      : sent{routes.sent_by(rank)}, received{routes.received_by(rank)}, element{of}, c{columns}, in((sum_of(sent) + spare) * c, T(77.F)),
        out((sum_of(received) + spare) * c, T(66.F)), kept{}, expected{out} {
    Extent at = 0;
    for (Rank to = 0; to < routes.ranks; ++to)
      for (Extent i = 0; i < sent[to] * c; ++i) in[at++] = value<T>(rank * 8 + to, i);
    at = 0;
    for (Rank from = 0; from < routes.ranks; ++from)
      for (Extent i = 0; i < received[from] * c; ++i) expected[at++] = value<T>(from * 8 + rank, i);
    kept = in;
  }
  static View rows(std::vector<T>& x, Extent c, Element e) { return {x.empty() ? nullptr : x.data(), {x.size() / c, c}, e}; }
  Lease post(const Communicator& all) { return all.all_to_all(rows(in, c, element), sent, rows(out, c, element), received); }
  bool right() const { return same(out, expected) && same(in, kept); }
  std::vector<Extent> sent, received;
  Element element;
  Extent c;
  std::vector<T> in, out, kept, expected;
};
template <class T>
bool exchanged(const Communicator& all, std::uint64_t seed, Extent columns, Extent spare, Element element = element_of<T>) {
  Exchange<T> x{{all.size(), seed}, all.rank(), columns, spare, element};
  x.post(all).wait();
  return x.right();
}

/// Any counts and elements; then several under way beside messages between the same ranks, waited for in any order.
inline void all_to_all(const World& world) {
  const Communicator all{world, Axes::expert};
  Extent wrong = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed)
    for (const Extent columns : {1, 5}) {
      const Extent spare = seed % 3;
      wrong += !exchanged<float>(all, seed, columns, spare) + !exchanged<double>(all, seed, columns, spare);
      wrong += !exchanged<bf16>(all, seed, columns, spare);
      wrong += !exchanged<std::uint8_t>(all, seed, columns, spare) + !exchanged<std::int16_t>(all, seed, columns, spare, Element::f16);
    }
  CHECK(wrong == 0);

  // Equal shares, by the rule of parts.
  for (const Extent rows : {0, 1, 7, 64}) {
    const Extent mine = all.part(rows).size();
    auto in = values<float>(all.rank(), rows * 3);
    std::vector<float> out(mine * all.size() * 3), expected;
    for (Rank r = 0; r < all.size(); ++r) {
      const auto part = rows_of(values<float>(r, rows * 3), 3, all.part(rows));
      expected.insert(expected.end(), part.begin(), part.end());
    }
    all.all_to_all(view(in, {rows, 3}), view(out, {mine * all.size(), 3})).wait();
    CHECK(same(out, expected));
  }

  constexpr Extent calls = 9;
  std::vector<std::unique_ptr<Exchange<float>>> exchanges;
  std::vector<Lease> leases;
  const Rank next = (all.rank() + 1) % all.size(), previous = (all.rank() + all.size() - 1) % all.size();
  std::vector<float> word(1, float(all.rank())), answer(1, -1.F), sum(1, 1.F);
  if (all.size() > 1 && all.rank() % 2 == 0) leases.push_back(all.send(view(word), next)), leases.push_back(all.receive(view(answer), previous));
  for (Extent i = 0; i < calls; ++i) {
    exchanges.push_back(std::make_unique<Exchange<float>>(Routes{all.size(), i}, all.rank(), 4, 0));
    leases.push_back(exchanges.back()->post(all));
    if (i == 4) leases.push_back(all.all_reduce(view(sum)));
  }
  if (all.size() > 1 && all.rank() % 2) leases.push_back(all.send(view(word), next)), leases.push_back(all.receive(view(answer), previous));
  for (Extent i = 0, n = leases.size(); i < n; ++i) leases[all.rank() % 2 ? n - 1 - i : i].wait();
  for (const auto& x : exchanges) wrong += !x->right();
  CHECK(wrong == 0);
  CHECK(sum[0] == float(all.size()));
  if (all.size() > 1) CHECK(answer[0] == float(previous));
}

/// Every verb with every element, over sizes that the ranks share unevenly or not at all.
inline void every_verb(const World& world) {
  for (const Shape s : {Shape{0, 1}, {1, 1}, {5, 1}, {7, 3}, {2, 8}, {64, 33}, {4'099, 1}}) {
    for (const bool odd : world->ordered() ? std::vector{false, true} : std::vector{false}) {
      reductions<float>(world, s.rows, s.columns, odd);
      reductions<double>(world, s.rows, s.columns, odd);
      reductions<bf16>(world, s.rows, s.columns, odd);
    }
    reductions<std::int32_t>(world, s.rows, s.columns, false);
    reductions<std::int64_t>(world, s.rows, s.columns, false);
    for (const Element e : {Element::f32, Element::i32, Element::u32}) movements<std::int32_t>(world, s.rows, s.columns, e);
    for (const Element e : {Element::f64, Element::i64, Element::u64}) movements<std::int64_t>(world, s.rows, s.columns, e);
    for (const Element e : {Element::bf16, Element::f16, Element::i16, Element::u16}) movements<std::int16_t>(world, s.rows, s.columns, e);
    for (const Element e : {Element::i8, Element::u8, Element::boolean}) movements<std::uint8_t>(world, s.rows, s.columns, e);
  }
  Communicator{world, Axes::data}.barrier();
}

/// Who looks for an overflow must see it.
inline void a_nan_wins(const World& world) {
  const Communicator all{world, Axes::data};
  for (Rank bad = 0; bad < all.size(); ++bad) {
    std::vector<float> x(3, float(all.rank()));
    std::vector<bf16> y(3, bf16{float(all.rank())});
    if (all.rank() == bad) x[1] = std::numeric_limits<float>::quiet_NaN(), y[1] = bf16{x[1]};
    all.all_reduce(view(x), Combine::max).wait();
    all.all_reduce(view(y), Combine::max).wait();
    CHECK(std::isnan(x[1]));
    CHECK(std::isnan(float(y[1])));
    CHECK(x[2] == float(all.size() - 1));
    CHECK(float(y[0]) == float(all.size() - 1));
  }
}

/// Different ranks wait for the same calls in different orders.
inline void waits_out_of_order(const World& world) {
  const Communicator all{world, Axes::data};
  constexpr Extent calls = 12;
  std::vector<std::vector<float>> buffers;
  std::vector<Lease> leases;
  for (Extent i = 0; i < calls; ++i) buffers.push_back(values<float>(all.rank(), 100 + i));
  for (auto& x : buffers) leases.push_back(all.all_reduce(view(x)));
  for (Extent i = 0; i < calls; ++i) leases[(i * (all.rank() % 2 ? 5 : 7) + all.rank()) % calls].wait();
  for (const auto& x : buffers) CHECK(same(x, combined<float>(all.size(), x.size(), Combine::sum)));
}

/// More leases than fit a transport's ring: the oldest are served on the way.
inline void many_outstanding(const World& world) {
  const Communicator all{world, Axes::data};
  std::vector<std::vector<double>> buffers(150);
  std::vector<Lease> leases;
  for (auto& x : buffers) x = values<double>(all.rank(), 9), leases.push_back(all.all_reduce(view(x)));
  for (Lease& lease : leases) lease.wait();
  Extent wrong = 0;
  for (const auto& x : buffers) wrong += !same(x, combined<double>(all.size(), x.size(), Combine::sum));
  CHECK(wrong == 0);
}

/// Messages between two ranks arrive in the order of their sending, whatever is waited for first.
inline void messages_in_order(const World& world) {
  const Communicator all{world, Axes::pipe};
  if (all.size() == 1) return;
  constexpr Extent messages = 40;
  const Rank next = (all.rank() + 1) % all.size(), previous = (all.rank() + all.size() - 1) % all.size();
  std::vector<std::vector<float>> sent, received;
  std::vector<Lease> leases;
  for (Extent i = 0; i < messages; ++i) sent.push_back(values<float>(all.rank(), i * 50)), received.emplace_back(i * 50);
  for (Extent i = 0; i < messages; ++i) leases.push_back(all.send(view(sent[i]), next)), leases.push_back(all.receive(view(received[i]), previous));
  for (Extent i = leases.size(); i-- > 0;) leases[i].wait();
  Extent wrong = 0;
  for (Extent i = 0; i < messages; ++i) wrong += !same(received[i], values<float>(previous, i * 50));
  CHECK(wrong == 0);
}

/// Groups of one, groups in another order than the world's, and the overlapping rows and columns of a grid, all at once.
inline void groups(const World& world) {
  const Rank rank = world->rank();
  const Extent ranks = world->size();
  const World alone = world->among({rank});
  CHECK(alone->size() == 1);
  CHECK(alone->rank() == 0);
  reductions<float>(alone, 7, 2, alone->ordered());
  movements<std::int32_t>(alone, 7, 2, Element::f32);

  std::vector<Rank> backwards;
  for (Rank r = ranks; r-- > 0;) backwards.push_back(r);
  const World reversed = world->among(backwards);
  CHECK(reversed->rank() == ranks - 1 - rank);
  CHECK(reversed->size() == ranks);
  reductions<double>(reversed, 5, 3, reversed->ordered());
  movements<std::int32_t>(reversed, 5, 3, Element::i32);
  for (const World& group : {alone, reversed}) CHECK(exchanged<bf16>({group, Axes::expert}, 11, 3, 1));

  if (ranks < 4 || ranks % 2 != 0) return;
  std::vector<Rank> row, column;
  for (Rank r = 0; r < ranks; ++r) {
    if (r / 2 == rank / 2) row.push_back(r);
    if (r % 2 == rank % 2) column.push_back(r);
  }
  const Communicator rows{world->among(row), Axes::tensor}, columns{world->among(column), Axes::data}, all{world, Axes::data | Axes::tensor};
  auto a = values<float>(rank, 33), b = a, c = a;
  Lease in_row = rows.all_reduce(view(a)), in_column = columns.all_reduce(view(b)), in_all = all.all_reduce(view(c));
  switch (rank % 3) {  // no two neighbours wait in the same order
    case 0: in_row.wait(), in_column.wait(), in_all.wait(); break;
    case 1: in_all.wait(), in_row.wait(), in_column.wait(); break;
    default: in_column.wait(), in_all.wait(), in_row.wait();
  }
  const auto sum_over = [&](const std::vector<Rank>& members) {
    std::vector<float> sum(33, 0.F);
    for (const Rank r : members)
      for (Extent i = 0; i < sum.size(); ++i) sum[i] += value<float>(r, i);
    return sum;
  };
  CHECK(same(a, sum_over(row)));
  CHECK(same(b, sum_over(column)));
  CHECK(same(c, combined<float>(ranks, 33, Combine::sum)));

  // A subgroup of a subgroup; its ranks are named by their places in the parent.
  const Rank mine = columns.rank();
  const World pair = columns.transport()->among({mine | 1, mine & ~Rank(1)});
  CHECK(pair->rank() == 1 - mine % 2);
  reductions<float>(pair, 6, 1, false);
}

/// A lease may be handed on, and ends once.
inline void leases(const World& world) {
  const Communicator all{world, Axes::data};
  auto x = values<float>(all.rank(), 10), y = x;
  Lease first = all.all_reduce(view(x));
  CHECK(first.pending());
  Lease second = std::move(first);
  CHECK_FALSE(first.pending());
  second.wait();
  CHECK_FALSE(second.pending());
  second.wait();
  second = all.all_reduce(view(y));
  second.wait();
  CHECK(same(x, combined<float>(all.size(), 10, Combine::sum)));
  CHECK(same(y, x));
}

inline void all(const World& world) {
  every_verb(world);
  all_to_all(world);
  a_nan_wins(world);
  waits_out_of_order(world);
  many_outstanding(world);
  messages_in_order(world);
  groups(world);
  leases(world);
  Communicator{world, Axes::data}.barrier();
}

/// One call of each kind, for transports that count and for those that move nothing.
inline void one_of_each(const World& world, float* memory) {
  const Communicator all{world, Axes::data};
  const Rank rank = all.rank();
  const Extent ranks = all.size();
  const auto at = [&](Extent offset, Shape shape) { return View{memory ? memory + offset : nullptr, shape, Element::f32}; };
  const Range mine = all.part(10);
  all.all_reduce(at(0, {7, 3})).wait();
  all.reduce_scatter(at(0, {10, 2}), at(0, {10, 2}).rows(mine)).wait();
  all.all_gather(at(0, {10, 2}).rows(mine), at(0, {10, 2})).wait();
  all.broadcast(at(0, {5, 1}), 0).wait();
  all.barrier();
  std::vector<Extent> sent(ranks), received(ranks);
  for (Rank r = 0; r < ranks; ++r) sent[r] = (rank + 2 * r) % 3, received[r] = (r + 2 * rank) % 3;
  all.all_to_all(at(0, {20, 2}), sent, at(100, {20, 2}), received).wait();
  all.all_to_all(at(0, {10, 2}), at(100, {mine.size() * ranks, 2})).wait();
  if (ranks == 1) return;
  Lease send = all.send(at(0, {4, 1}), (rank + 1) % ranks), receive = all.receive(at(100, {4, 1}), (rank + ranks - 1) % ranks);
  send.wait(), receive.wait();
}

/// What anybody can refuse alone, before others wait.
template <class Run>
int error_of(Run run) {
  try {
    run();
  } catch (const Error& e) {
    return e.number();
  }
  return 0;
}
inline void refusals(const World& world) {
  const Communicator all{world, Axes::data};
  const Extent ranks = all.size();
  std::vector<float> x(64);
  std::vector<std::uint8_t> bytes(64);
  const auto error_of_wait = [&](auto call) { return error_of([&] { call().wait(); }); };
  if (!world->dry()) CHECK(error_of_wait([&] { return all.all_reduce({nullptr, {4, 1}}); }) == 507);
  CHECK(error_of_wait([&] { return all.reduce_scatter(view(x, {16, 1}), {x.data() + 20, {all.part(16).size() + 1, 1}}); }) == 507);
  CHECK(error_of_wait([&] { return all.all_gather({x.data(), {all.part(16).size() + 1, 1}}, {x.data() + 20, {16, 1}}); }) == 507);
  CHECK(error_of_wait([&] { return all.all_gather({bytes.data(), {all.part(16).size(), 1}, Element::u8}, view(x, {16, 1})); }) == 507);
  const Range mine = all.part(16);
  const View shifted{x.data() + 1 + mine.begin, {mine.size(), 1}};
  if (!world->dry()) CHECK(error_of_wait([&] { return all.reduce_scatter(view(x, {16, 1}), shifted); }) == 507);

  // An all-to-all: counts that are too few, too large (their sum too, were it taken naively) or on one side; rows, elements and memory.
  std::vector<Extent> one(ranks, 1), few(ranks - 1), large(ranks, 1), zero(ranks), other = one;
  large.front() = ranks + 1, other[all.rank()] = 2;
  std::vector<Extent> endless(ranks, ~Extent(0));
  const View in = view(x).part({0, ranks}), out = view(x).part({32, 32 + ranks + 1});
  CHECK(error_of_wait([&] { return all.all_to_all(in, one, out, {}); }) == 507);
  CHECK(error_of_wait([&] { return all.all_to_all(in, {}, out, one); }) == 507);
  if (ranks > 1) CHECK(error_of_wait([&] { return all.all_to_all(in, few, out, one); }) == 507);
  if (ranks > 1) CHECK(error_of_wait([&] { return all.all_to_all(in, one, out, few); }) == 507);
  CHECK(error_of_wait([&] { return all.all_to_all(in, large, out, one); }) == 507);
  CHECK(error_of_wait([&] { return all.all_to_all(in, one, out.part({0, ranks - 1}), one); }) == 507);
  CHECK(error_of_wait([&] { return all.all_to_all(in, endless, out, endless); }) == 507);
  CHECK(error_of_wait([&] { return all.all_to_all(in, one, out, other); }) == 507);
  CHECK(error_of_wait([&] { return all.all_to_all(in.reshaped({ranks, 1}), one, {x.data() + 32, {ranks, 2}}, one); }) == 507);
  CHECK(error_of_wait([&] { return all.all_to_all(in, one, {bytes.data(), {ranks, 1}, Element::u8}, one); }) == 507);
  if (!world->dry()) {
    CHECK(error_of_wait([&] { return all.all_to_all(in, one, {nullptr, {ranks, 1}}, one); }) == 507);
    CHECK(error_of_wait([&] { return all.all_to_all({nullptr, {ranks, 1}}, one, out, one); }) == 507);
    CHECK(error_of_wait([&] { return all.all_to_all(in, one, view(x).part({ranks - 1, 2 * ranks}), one); }) == 507);
    CHECK(error_of_wait([&] { return all.all_to_all(in, one, in, one); }) == 507);
    CHECK(error_of_wait([&] { return all.all_to_all(in, out.part({0, 0})); }) == (all.part(ranks).size() > 0 ? 507 : 0));
  }
  CHECK(error_of_wait([&] { return all.all_reduce({bytes.data(), {8, 1}, Element::u8}); }) == 508);
  CHECK(error_of_wait([&] { return all.broadcast(view(x), ranks); }) == 509);
  CHECK(error_of_wait([&] { return all.send(view(x), ranks); }) == 509);
  CHECK(error_of_wait([&] { return all.receive(view(x), all.rank()); }) == 509);
  CHECK(error_of([&] { world->among({ranks}); }) == 510);
  CHECK(error_of([&] { world->among({all.rank(), all.rank()}); }) == 510);
  CHECK(error_of([&] { world->among({}); }) == 510);
}

}  // namespace dsx::conformance
