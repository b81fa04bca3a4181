// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gold wire bytes
/// The sum that travels as signs, on thread ranks: the golden one, a reference that sums in one process, its bytes, and what it owes.
#include "support/golden.hpp"
#include "support/signs.hpp"

#include <dsx/comm/mesh.hpp>
#include <dsx/weights/one_bit.hpp>

#include <doctest/doctest.h>

#include <numeric>

using namespace dsx;
using namespace dsx::test;

namespace {

View view_of(std::vector<double>& x) { return {x.data(), {x.size(), 1}, Element::f64, Place::cpu, nullptr}; }
std::vector<double> values(const View& v) {
  std::vector<double> all(v.size());
  for (Extent i = 0; i < all.size(); ++i) all[i] = v.element == Element::f64 ? v.pointer<double>()[i] : double(v.pointer<float>()[i]);
  return all;
}
/// f(session, mesh) on so many data ranks.
void on_data_ranks(Extent ranks, auto f) {
  launch_threads(ranks, [&](Session& session) {
    session.memory.scratch.reserve(1_MiB);
    f(session, Mesh{session, {.data = ranks}});
  });
}

/// Tensors of every awkward size, one after the other, with elements between them that belong to none.
std::vector<Range> awkward_tensors() {
  std::vector<Range> all;
  Extent at = 0;
  for (const Extent size : {1, 2, 3, 7, 8, 9, 16, 63, 64, 65, 257, 1000, 2049}) all.push_back({at, at + size}), at += size + 1;
  return all;
}
/// Rank r's terms of a round, in [-1, 1) but for rows of zeros.
std::vector<double> terms_of(Extent size, Extent round, Rank r) {
  std::vector<double> all(size);
  for (Extent i = 0; i < size; ++i)
    all[i] = i % 50 == 3 ? 0 : 2 * double(uniform({.seed = 5, .step = std::uint32_t(round)}, i, std::uint32_t(r))) - 1;
  return all;
}

}  // namespace

TEST_CASE("a sum as signs over thread ranks gives the golden means and errors") {
  const SafetensorsFile file{golden("optim/compressed_allreduce.safetensors")};
  for (const Extent n : {13, 64})
    for (const Extent ranks : {2, 4})
      for (const bool padded : {false, true})
        for (const Element element : {Element::f64, Element::f32}) {
          const std::string shape = concat("n", n, ".ranks", ranks), name = shape + (padded ? ".padding_deepspeed." : ".padding_none.");
          const Extent size = padded ? round_up(n, ranks * std::lcm(ranks, Extent(8))) : n;  // as DeepSpeed pads, zeros count
          const std::vector<double> inputs = numbers(file, shape + ".inputs");
          std::vector<std::vector<double>> sums(ranks), owed(ranks), owed_of_part(ranks);
          for (auto* all : {&sums, &owed, &owed_of_part}) all->resize(ranks);
          std::vector<double> rounds_of_sums, rounds_of_owed, rounds_of_parts;
          on_data_ranks(ranks, [&](Session& session, const Mesh& mesh) {
            const Rank rank = session.rank();
            OneBit sum{mesh, Axes::data, {{0, size}}, size, element};
            const View x = session.memory.keep(Category::gradients, {size, 1}, element);
            for (Extent round = 0; round < 3; ++round) {
              dispatch(element, [&](auto zero) {
                using T = decltype(zero);
                for (Extent i = 0; i < size; ++i) x.pointer<T>()[i] = T(i < n ? inputs[(round * ranks + rank) * n + i] : 0);
              });
              sum.reduce(x);
              const auto all_owed = sum.owed();
              sums[rank] = values(x), owed[rank] = values(all_owed[0].view), owed_of_part[rank] = values(all_owed[1].view);
              mesh.world().barrier();
              if (session.is_root()) {
                for (Rank r = 0; r < ranks; ++r) {
                  if (sums[r] != sums[0]) sums[0].assign(size, std::nan(""));
                  rounds_of_owed.insert(rounds_of_owed.end(), owed[r].begin(), owed[r].end());
                  for (const double e : owed_of_part[r]) rounds_of_parts.push_back(e / double(ranks));  // the golden run averages
                }
                for (Extent i = 0; i < n; ++i) rounds_of_sums.push_back(sums[0][i] / double(ranks));
              }
              mesh.world().barrier();
            }
          });
          CAPTURE(name);
          CHECK(relative(rounds_of_sums, numbers(file, name + "output")) < 1e-6);  // scales travel as floats
          CHECK(relative(rounds_of_owed, numbers(file, name + "worker_error")) < 1e-6);
          CHECK(relative(rounds_of_parts, numbers(file, name + "server_error")) < 1e-6);
        }
}

TEST_CASE("a sum as signs equals the sum in one process, on 1, 2, 3, 4 and 8 ranks, and is the same on all of them") {
  const std::vector<Range> tensors = awkward_tensors();
  const Extent size = tensors.back().end + 5, rounds = 5;
  for (const Extent ranks : {1, 2, 3, 4, 8}) {
    CAPTURE(ranks);
    std::vector<std::vector<double>> expected(rounds), sums(ranks), owed(ranks);
    std::vector<SignSum> references;
    for (const Range t : tensors) references.emplace_back(t.size(), ranks);
    for (Extent round = 0; round < rounds; ++round) {
      std::vector<std::vector<double>> all;
      for (Rank r = 0; r < ranks; ++r) all.push_back(terms_of(size, round, r));
      expected[round] = all[0];  // elements of no tensor stay as they are on each rank
      for (Extent t = 0; t < tensors.size(); ++t) {
        std::vector<std::vector<double>> terms;
        for (const auto& one : all) terms.emplace_back(one.begin() + std::ptrdiff_t(tensors[t].begin), one.begin() + std::ptrdiff_t(tensors[t].end));
        const auto sum = references[t](terms);
        std::copy(sum.begin(), sum.end(), expected[round].begin() + std::ptrdiff_t(tensors[t].begin));
      }
    }
    on_data_ranks(ranks, [&](Session& session, const Mesh& mesh) {
      OneBit sum{mesh, Axes::data, tensors, size, Element::f64};
      for (Extent round = 0; round < rounds; ++round) {
        auto x = terms_of(size, round, session.rank());
        sum.reduce(view_of(x));
        sums[session.rank()].insert(sums[session.rank()].end(), x.begin(), x.end());
      }
      owed[session.rank()] = values(sum.owed()[0].view);
    });
    for (Rank r = 0; r < ranks; ++r)
      for (Extent round = 0; round < rounds; ++round)
        for (Extent t = 0; t < tensors.size(); ++t) {
          const auto part = [&](const std::vector<double>& of, Extent begin) {
            return std::vector<double>(of.begin() + std::ptrdiff_t(begin + tensors[t].begin), of.begin() + std::ptrdiff_t(begin + tensors[t].end));
          };
          const auto mine = part(sums[r], round * size);
          CHECK(mine == part(sums[0], round * size));
          CHECK(relative(mine, part(expected[round], 0)) < 1e-12);
          CHECK(relative(part(owed[r], 0), references[t].owed[r]) < 1e-12);
        }
    // Between tensors nothing moves and nothing is owed.
    for (const Range t : tensors) CHECK(sums[ranks - 1][t.end] == terms_of(size, 0, ranks - 1)[t.end]);
    for (const Range t : tensors) CHECK(owed[ranks - 1][t.end] == 0);
  }
}

TEST_CASE("what was summed and what is owed together are all that came in") {
  const std::vector<Range> tensors = awkward_tensors();
  const Extent size = tensors.back().end, rounds = 6, ranks = 4;
  std::vector<double> came(size), went(size), still_owed(size);
  std::mutex mutex;
  on_data_ranks(ranks, [&](Session& session, const Mesh& mesh) {
    OneBit sum{mesh, Axes::data, tensors, size, Element::f64};
    for (Extent round = 0; round < rounds; ++round) {
      auto x = terms_of(size, round, session.rank());
      const std::lock_guard lock{mutex};
      for (Extent i = 0; i < size; ++i) came[i] += x[i];
    }
    std::vector<double> total(size);
    for (Extent round = 0; round < rounds; ++round) {
      auto x = terms_of(size, round, session.rank());
      sum.reduce(view_of(x));
      for (Extent i = 0; i < size; ++i) total[i] += x[i];
    }
    const auto owed = values(sum.owed()[0].view), of_part = values(sum.owed()[1].view);
    const std::lock_guard lock{mutex};
    if (session.is_root()) went = total;
    for (Extent i = 0; i < size; ++i) still_owed[i] += owed[i];
    Extent at = 0;
    for (const Range t : tensors) {
      const Range part = SignSum{t.size(), ranks}.part(session.rank());
      for (Extent i = part.begin; i < part.end; ++i) still_owed[t.begin + i] += of_part[at++];
    }
    CHECK(at == of_part.size());
  });
  for (const Range t : tensors)
    for (Extent i = t.begin; i < t.end; ++i) CHECK(went[i] + still_owed[i] == doctest::Approx(came[i]).epsilon(1e-12));
}

TEST_CASE("a sum as signs moves a bit an element and a scale a tensor in each hop, and takes what its plan says") {
  const std::vector<Range> tensors = awkward_tensors();
  const Extent size = tensors.back().end;
  for (const Extent ranks : {2, 4, 8}) {
    Extent row = 0;
    for (const Range t : tensors) row += 4 + ((t.size() + ranks - 1) / ranks + 7) / 8;
    std::vector<double> twice_packed(ranks);
    on_data_ranks(ranks, [&](Session& session, const Mesh& mesh) {
      const auto moved_by = [&](Session& by, const Mesh& over) {
        const Extent before = by.memory.tally(Category::state).now;
        OneBit sum{over, Axes::data, tensors, size, Element::f32};
        Extent mine = 0;
        for (const Range t : tensors) mine += SignSum{t.size(), ranks}.part(by.rank()).size();
        CHECK(by.memory.tally(Category::state).now - before == round_up(4 * size, 64) + round_up(4 * mine, 64));
        by.traffic.clear();
        std::vector<float> x(size, 1);
        const View terms{by.is_dry() ? nullptr : x.data(), {size, 1}, Element::f32, Place::cpu, nullptr};
        sum.reduce(terms);
        CHECK(by.traffic.rows().size() == 2);
        CHECK(by.traffic.wire_bytes(Verb::all_to_all, Axes::data) == double((ranks - 1) * row));
        CHECK(by.traffic.wire_bytes(Verb::all_gather, Axes::data) == double((ranks - 1) * row));
        return by.memory.tally(Category::scratch).peak;
      };
      const Extent taken = moved_by(session, mesh);
      Session dry = session.dry_twin();
      const Mesh dry_mesh{dry, mesh.degrees()};
      CHECK(moved_by(dry, dry_mesh) == taken);
      CHECK(session.memory.tally(Category::state).now == 0);  // given back
    });
  }
}
