// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// BYTES and WIRE of plans: what grows with what, what recompute keeps, and a large model on 64 ranks planned on a laptop.
// labels: bytes wire
#include <dsx/dsx.hpp>

#include <doctest/doctest.h>

#include <chrono>

using namespace dsx;

namespace {

/// What one rank's pass needs at its peak, by category.
struct PassBytes {
  Extent saved = 0, carried = 0, scratch = 0;
  Extent sum() const { return saved + carried + scratch; }
};
template <class Policies>
PassBytes plan(const Gpt2Shape& shape, Extent rows, Degrees degrees, const Policies& recipe, TokenLoss loss = {.chunk = 512}) {
  Session session = Session::dry(0, degrees.ranks());
  const Mesh mesh{session, degrees};
  Weights weights{mesh, make_gpt2(shape), recipe};
  Trainer trainer{weights, Sgd{}, loss, {.rows = rows}};
  const auto peak = [&](Category c) { return session.memory.tally(c).peak; };
  return {peak(Category::saved), peak(Category::carried), peak(Category::scratch)};
}

/// The scratch of one operation of a planned pass: what lay there before, and what it took for itself at most.
struct Use {
  std::string operation{};
  Unit unit = 0;
  bool backward = false;
  Extent before = 0, own = 0;
};
struct Ledger : Observer {
  Tally& scratch;
  std::vector<Use> uses{}, under_way{};
  explicit Ledger(Tally& tally) : scratch{tally} {}
  void before(const char* operation, Unit unit, Phase phase, const Cost&) override {
    scratch.peak = scratch.now;
    under_way.push_back({operation, unit, phase == Phase::backward, scratch.now});
  }
  void after(const char*, Unit, Phase, Pass&) override {
    under_way.back().own = scratch.peak - under_way.back().before;
    uses.push_back(under_way.back()), under_way.pop_back();
  }
};
/// Every operation of one micro-batch, forward and backward, in the order in which they end.
template <class Policies>
std::vector<Use> uses_of(const Gpt2Shape& shape, Extent rows, Degrees degrees, const Policies& recipe, TokenLoss loss = {.chunk = 512}) {
  Session session = Session::dry(0, degrees.ranks());
  const Mesh mesh{session, degrees};
  Weights weights{mesh, make_gpt2(shape), recipe};
  Stage stage{weights, loss};
  Lifetimes lives;
  Flight flight{mesh, lives, {.element = weights.elements().value}};
  Ledger ledger{session.memory.tally(Category::scratch)};
  for (const bool known : {false, true}) {
    lives.known = known, ledger.uses.clear();
    flight.pass.observer = &ledger;
    stage.forward(flight, {.bound = rows}, {1}, 0);
    stage.backward(flight);
    flight.pass.close();
  }
  return ledger.uses;
}

constexpr Gpt2Shape small{.vocabulary = 2'048, .positions = 4'096, .width = 64, .heads = 4, .layers = 3, .dropout = 0.1};
constexpr Extent line = 64;  // each buffer is padded to it
constexpr Extent padded(Extent elements) { return round_up(elements * sizeof(float), line); }

}  // namespace

TEST_CASE("doubling the length of a sequence doubles what the pass saves and carries") {
  for (const bool token_split : {false, true}) {
    const Degrees degrees{.tensor = token_split ? 2UL : 1UL, .token_split = token_split};
    PassBytes before = plan(small, 512, degrees, Recipe{});
    for (const Extent rows : {1'024, 2'048, 4'096}) {
      const PassBytes now = plan(small, rows, degrees, Recipe{});
      MESSAGE(rows << " rows: saved " << now.saved << ", carried " << now.carried << ", scratch " << now.scratch);
      CHECK(now.saved == 2 * before.saved);
      CHECK(now.carried == 2 * before.carried);
      before = now;
    }
  }
}

TEST_CASE("doubling the length of a sequence doubles what each operation finds on scratch and, packing aside, what it takes") {
  const Unit last = Unit(small.layers) + 1;
  for (const bool token_split : {false, true})
    for (const Extent rows : {512, 1'024, 2'048}) {
      const Degrees degrees{.tensor = token_split ? 2UL : 1UL, .token_split = token_split};
      const std::vector<Use> once = uses_of(small, rows, degrees, Recipe{}), twice = uses_of(small, 2 * rows, degrees, Recipe{});
      REQUIRE(once.size() == twice.size());
      Extent peak = 0, attentions = 0;
      for (Extent i = 0; i < once.size(); ++i) {
        const Use& u = once[i];
        INFO((u.backward ? "backward " : "forward "), u.operation, " in unit ", u.unit);
        REQUIRE(u.operation == twice[i].operation);
        const bool loss = u.operation == "loss", has_packing = u.operation == "linear" || u.operation == "cross_entropy";
        // The loss itself, or its gradient, is one number.
        const bool number = u.unit == last && (u.backward ? !loss : loss || u.operation == "cross_entropy");
        CHECK(twice[i].before == 2 * u.before - (number ? line : 0));
        if (!has_packing) CHECK(twice[i].own == 2 * u.own - (loss && u.backward ? line : 0));
        peak = std::max(peak, u.before + u.own), attentions += u.operation == "attention";
      }
      CHECK(attentions == 2 * small.layers);
      CHECK(peak == plan(small, rows, degrees, Recipe{}).scratch);
    }
}

TEST_CASE("attention, products and the loss take the scratch that their formulas say") {
  Gpt2Shape shape = small;
  shape.width = 72;  // heads of 18 channels
  const auto check = [&](Extent ranks, Extent rows, const auto& recipe, Element value, Element gradient) {
    const auto bytes = [](Extent elements, Element e) { return round_up(elements * bytes_of(e), line); };
    const auto matrix = [](Shape s, Element e) { return View{nullptr, s, e}; };
    const auto packing = [](const kernels::Matrix& a, const kernels::Matrix& b, const View& c) {
      return round_up(kernels::matmul_scratch(a, b, c), line);
    };
    const Extent width = shape.width, heads = shape.heads / ranks, entries = shape.vocabulary / ranks, chunk = 512;
    struct Product {
      Extent in, out;
    };
    const Product products[] = {{width, 3 * width / ranks}, {width / ranks, width}, {width, 4 * width / ranks}, {4 * width / ranks, width}};
    Extent seen = 0, linears = 0;
    for (const Use& u : uses_of(shape, rows, {.tensor = ranks, .token_split = ranks > 1}, recipe, {.chunk = chunk})) {
      INFO((u.backward ? "backward " : "forward "), u.operation, " in unit ", u.unit);
      if (u.operation == "attention") {
        // Nothing forward. Backward, beside the gradient of q, k and v: sums of the queries' gradients, each head padded to 16 channels, and
        // two numbers a head.
        const Extent padded = round_up(width / shape.heads, 16);
        CHECK(u.own == (u.backward ? bytes(rows * 3 * width / ranks, value) + bytes(rows * heads * (padded + 2), wide(value)) : 0));
        ++seen;
      } else if (u.operation == "linear") {
        const Extent number = linears++ % 4;
        const Product& product = products[u.backward ? 3 - number : number];
        const View x = matrix({rows, product.in}, value), w = matrix({product.in, product.out}, value), y = matrix({rows, product.out}, value);
        if (!u.backward) {
          CHECK(u.own == packing({x}, {w}, y));
        } else {
          CHECK(u.own == bytes(x.size(), value) + std::max(packing({y}, {w, true}, x), packing({x, true}, {y}, matrix(w.shape, gradient))));
        }
        ++seen;
      } else if (u.operation == "gelu") {
        // Forward it stands in its product's epilogue; backward it gives the gradient of what came out of the product.
        CHECK((u.backward && u.own == bytes(rows * 4 * width / ranks, value)));
        ++seen;
      } else if (u.operation == "cross_entropy") {
        // One chunk of logits, narrowed for the products of bf16, and the gradient of what they were computed from.
        const View hidden = matrix({rows, width}, value), part = matrix({chunk, width}, value), logits = matrix({rows, chunk}, wide(value)),
                   narrow = matrix({rows, chunk}, value);
        REQUIRE(entries > chunk);
        const Extent space =
            std::max({packing({hidden}, {part, true}, logits), packing({narrow}, {part}, hidden), packing({narrow, true}, {hidden}, part)});
        CHECK(u.own == bytes(logits.size(), wide(value)) + (value == wide(value) ? 0 : bytes(narrow.size(), value)) + space +
                           (u.backward ? bytes(hidden.size(), value) : 0));
        ++seen;
      }
    }
    CHECK(seen == 2 * (5 * shape.layers + 1) + shape.layers);
  };
  for (const Extent ranks : {1, 2})
    for (const Extent rows : {96, 512, 2'048}) {
      check(ranks, rows, Recipe{}, Element::f32, Element::f32);
      check(ranks, rows, Recipe{Bf16{}}, Element::bf16, Bf16{}.gradient);
    }
}

TEST_CASE("doubling the vocabulary leaves the pass's peak") {
  const PassBytes before = plan(small, 256, {}, Recipe{});
  Gpt2Shape larger = small;
  for (larger.vocabulary = 4'096; larger.vocabulary <= 65'536; larger.vocabulary *= 2) {
    const PassBytes now = plan(larger, 256, {}, Recipe{});
    CHECK(now.saved == before.saved);
    CHECK(now.carried == before.carried);
    CHECK(now.scratch == before.scratch);
  }
  // A loss that held all logits of its rows would need at least so much.
  CHECK(before.sum() < padded(256 * 65'536));
}

TEST_CASE("recompute keeps one value of each unit, and a unit's own while it plays") {
  const Extent rows = 128, one = padded(rows * small.width);
  const auto saved = [&](Extent layers, const auto& recipe) {
    Gpt2Shape shape = small;
    shape.layers = layers;
    return plan(shape, rows, {}, recipe).saved;
  };
  // Each further block keeps what leaves the block before it.
  CHECK(saved(6, Recipe{RecomputeUnits{}}) - saved(5, Recipe{RecomputeUnits{}}) == one);
  CHECK(saved(12, Recipe{RecomputeUnits{}}) - saved(6, Recipe{RecomputeUnits{}}) == 6 * one);
  // Of a block with dropout backward reads: its two norms' inputs, statistics and outputs, q, k, v, what attention gives and the logarithms
  // of its sums, and the hidden values before and after GELU.
  const Extent norms = 2 * (2 * one + padded(2 * rows)), attention = padded(3 * rows * small.width) + one + padded(small.heads * rows),
               hidden = 2 * padded(4 * rows * small.width);
  CHECK(saved(6, Recipe{}) - saved(5, Recipe{}) == norms + attention + hidden);
  const double kept = double(saved(12, Recipe{RecomputeUnits{}})) / double(saved(12, Recipe{}));
  MESSAGE("12 blocks save " << 100 * kept << " % of the bytes");
  CHECK(kept < 0.2);
}

TEST_CASE("a block doesn't keep what operations of the named classes give, and backward holds one of each size anew") {
  using enum OperationClass;
  const Extent rows = 128, one = padded(rows * small.width), statistics = padded(2 * rows), hidden = padded(4 * rows * small.width);
  const auto block = [&](OperationClass classes) {
    Gpt2Shape shape = small;
    const auto saved = [&] { return plan(shape, rows, {}, Recipe{RecomputeOperations{classes}}).saved; };
    shape.layers = 6;
    const Extent six = saved();
    shape.layers = 5;
    return six - saved();
  };
  // Always: the inputs of the two norms, q, k, v, what attention gives and the logarithms of its sums, the hidden values before GELU.
  const Extent always = 2 * one + padded(3 * rows * small.width) + one + padded(small.heads * rows) + hidden;
  CHECK(block(none) == always + 2 * (one + statistics) + hidden);
  CHECK(block(norms) == always + hidden);
  CHECK(block(elementwise) == always + 2 * (one + statistics));
  CHECK(block(norms | elementwise) == always);
  // In place of the sum in the middle its term is kept.
  CHECK(block(norms | elementwise | sums) == always);
  const PassBytes kept = plan(small, rows, {}, Recipe{}), again = plan(small, rows, {}, Recipe{RecomputeOperations{}});
  CHECK(again.carried - kept.carried == hidden + one + statistics);
  MESSAGE("a block keeps " << 100 * double(always) / double(block(none)) << " % of the bytes");
}

TEST_CASE("GPT-2 of 1.5 B parameters is planned for 64 ranks under ZeRO-3 within a second") {
  const auto begin = std::chrono::steady_clock::now();
  constexpr Extent ranks = 64, micro_batches = 3;
  Session session = Session::dry(5, ranks);
  const Mesh mesh{session, {.data = ranks}};
  Weights weights{mesh, make_gpt2({.width = 1'600, .heads = 25, .layers = 48}), Recipe{ZeRO<3>{}, RecomputeUnits{}}};
  Trainer trainer{weights, AdamW{}, TokenLoss{}, {.micro_batches = micro_batches, .rows = 1'024, .clip = 1}};
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  MESSAGE(weights.parameters() << " parameters planned in " << seconds << " s");
  for (Extent c = 0; c < categories; ++c)
    MESSAGE(category_names[c] << " " << double(session.memory.tally(Category(c)).peak) / double(1_MiB) << " MiB");
  CHECK(seconds < 1);
  CHECK(weights.parameters() == 1'557'611'200);

  // Each use of a bundle gathers it once forward and once backward; the tied table is used at both ends.
  Extent stored = 0, used = 0, state = 0;
  for (const Bundle& b : weights.bundles().all()) {
    stored += b.size, used += b.size * b.units.size();
    state += 2 * round_up(b.size / ranks * sizeof(float), line);
  }
  CHECK(stored - weights.parameters() < 52 * 3 * ranks);  // padding: less than an element a rank for each bundle
  CHECK(session.memory.tally(Category::state).peak == state);
  session.traffic.clear();
  trainer.step({});
  CHECK(session.traffic.elements(Verb::all_gather) == micro_batches * 2 * used);
  CHECK(session.traffic.wire_bytes(Verb::all_gather) == doctest::Approx(double(micro_batches * 2 * used) * 4 * (ranks - 1) / ranks).epsilon(1e-14));
  // Gradients are scattered each micro-batch, the tied table's once for both uses.
  CHECK(session.traffic.elements(Verb::reduce_scatter) == micro_batches * stored);
  // Six times parameters x tokens, and two more for what is played again (Kaplan et al. 2020), besides attention's own.
  const double estimate = 8.0 * double(weights.parameters()) * 1'024 * micro_batches;
  CHECK(trainer.flops() > estimate);
  CHECK(trainer.flops() < 1.2 * estimate);
}

TEST_CASE("an all-gather of n elements moves n (N - 1) / N of them through a rank") {
  CHECK(ring_bytes(Verb::all_gather, 64, 4) == 48);
  CHECK(ring_bytes(Verb::reduce_scatter, 64, 4) == 48);
  CHECK(ring_bytes(Verb::all_reduce, 64, 4) == 96);
  CHECK(ring_bytes(Verb::send, 64, 4) == 64);
  CHECK(ring_bytes(Verb::receive, 64, 4) == 0);
}
