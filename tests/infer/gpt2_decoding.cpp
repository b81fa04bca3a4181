// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gold
/// Generation by the small GPT-2 of tests/golden against Hugging Face: tokens, probabilities, kept sets, beams; with and without cache.
#include <dsx/comm/mesh_text.hpp>
#include <dsx/infer/generator.hpp>
#include <dsx/models/gpt2.hpp>
#include <dsx/recipes.hpp>
#include <dsx/train/gpt2_files.hpp>

#include <doctest/doctest.h>

#include <mutex>

namespace {

using namespace dsx;

const std::filesystem::path folder = std::filesystem::path{DSX_GOLDEN} / "gpt2_tiny";

const SafetensorsFile& golden() {
  static const SafetensorsFile file{folder / "decoding.safetensors"};
  return file;
}
std::vector<int> ids(const std::string& name) {
  std::vector<std::int64_t> wide(golden().entry(name).size());
  golden().copy_to(name, View{wide.data(), {wide.size(), 1}, Element::i64});
  return {wide.begin(), wide.end()};
}
std::vector<double> numbers(const std::string& name) {
  std::vector<double> values(golden().entry(name).size());
  golden().copy_to(name, View{values.data(), {values.size(), 1}, Element::f64});
  return values;
}
std::vector<int> new_tokens(const std::string& name, const std::string& prompt) {
  const auto all = ids(name);
  return {all.begin() + std::ptrdiff_t(ids(prompt).size()), all.end()};
}
double distance(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (Extent i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

/// The tiny model with a generator, on one rank of any mesh. Its dropout must not matter.
struct Tiny {
  Mesh mesh;
  GptConfig config = read_gpt2_config(folder / "config.json");
  Weights<Gpt2, AnyRecipe> weights;
  Generator<Weights<Gpt2, AnyRecipe>> generator;

  Tiny(Session& session, GeneratorOptions options, Degrees degrees = {}, std::string_view recipe = "")
      : mesh{session, degrees},
        weights{mesh, make_gpt2(shape_of(config, 0.3)), choose_recipe(recipe, degrees.pipe)},
        generator{weights, sized(options)} {
    load_gpt2(folder, weights);
  }
  GeneratorOptions sized(GeneratorOptions o) const {
    o.length = config.n_positions, o.vocabulary = config.vocab_size;
    return o;
  }
};
const std::vector<std::vector<int>>& prompts() {
  static const std::vector<std::vector<int>> both{ids("prompt_0"), ids("prompt_1")};
  return both;
}
const Decoding greedy{.temperature = 0};

TEST_CASE("greedy tokens of a ragged batch are Hugging Face's, with a cache and without one") {
  for (const bool cached : {true, false}) {
    CAPTURE(cached);
    Session session{self_transport()};
    Tiny tiny{session, {.sequences = 2, .cached = cached}};
    std::vector<std::vector<int>> heard(2);
    const auto made = tiny.generator.generate(prompts(), 24, greedy, [&](Extent s, int token) { heard[s].push_back(token); });
    CHECK(made[0] == new_tokens("greedy_0", "prompt_0"));
    CHECK(made[1] == new_tokens("greedy_1", "prompt_1"));
    CHECK(heard == made);
  }
}

TEST_CASE("logits and probabilities behind a prompt are Hugging Face's") {
  Session session{self_transport()};
  Tiny tiny{session, {.sequences = 2}};
  const auto logits = tiny.generator.next_logits(prompts());
  for (const std::string i : {"0", "1"}) {
    const auto& row = logits[i == "0" ? 0 : 1];
    CHECK(distance(row, numbers("last_logits_" + i)) < 2e-5);
    CHECK(distance(probabilities(row, {}), numbers("softmax_" + i)) < 1e-6);
    CHECK(distance(probabilities(row, {.temperature = 0.7}), numbers("softmax_temperature_0.7_" + i)) < 1e-6);
  }
}

TEST_CASE("temperature, top-k and top-p keep the tokens that Hugging Face keeps, with its probabilities") {
  struct Chain {
    std::string name;
    Decoding how;
  };
  const Chain chains[] = {{"temperature_0.7.top_k_20", {.temperature = 0.7, .top_k = 20}},
                          {"temperature_0.7.top_p_0.9", {.temperature = 0.7, .top_p = 0.9}},
                          {"temperature_0.7.top_k_20.top_p_0.9", {.temperature = 0.7, .top_k = 20, .top_p = 0.9}}};
  for (const auto& [name, how] : chains)
    for (const std::string i : {"0", "1"}) {
      CAPTURE(name); CAPTURE(i);
      const auto p = probabilities(numbers("last_logits_" + i), how);
      std::vector<int> kept;
      for (Extent t = 0; t < p.size(); ++t)
        if (p[t] > 0) kept.push_back(int(t));
      CHECK(kept == ids("sampling." + name + ".kept_" + i));
      CHECK(distance(p, numbers("sampling." + name + ".probabilities_" + i)) < 1e-6);
    }
}

TEST_CASE("beam search finds Hugging Face's sequences and scores") {
  for (const bool cached : {true, false})
    for (const std::string i : {"0", "1"}) {
      CAPTURE(cached); CAPTURE(i);
      Session session{self_transport()};
      Tiny tiny{session, {.sequences = 3, .cached = cached}};
      const Beam best = tiny.generator.search(ids("prompt_" + i), 8, {.beams = 3});
      CHECK(best.tokens == new_tokens("beam3_" + i, "prompt_" + i));
      CHECK(best.score == doctest::Approx(numbers("beam3_score_" + i)[0]).epsilon(1e-5));
    }
}

TEST_CASE("a cache changes no sampled token and no probability") {
  const Decoding how{.temperature = 0.9, .top_k = 50, .top_p = 0.95, .seed = 11};
  Session one{self_transport()}, two{self_transport()};
  Tiny cached{one, {.sequences = 2}}, whole{two, {.sequences = 2, .cached = false}};
  const auto made = cached.generator.generate(prompts(), 20, how);
  CHECK(made == whole.generator.generate(prompts(), 20, how));
  CHECK(made[0] != whole.generator.generate(prompts(), 20, {.temperature = 0.9, .top_k = 50, .top_p = 0.95, .seed = 12})[0]);
}

TEST_CASE("the end of a sequence stops it and lets the others go on") {
  Session session{self_transport()};
  Tiny tiny{session, {.sequences = 2}};
  const auto whole = tiny.generator.generate(prompts(), 10, greedy);
  Decoding how = greedy;
  how.ends = {whole[0][3]};
  const auto ended = tiny.generator.generate(prompts(), 10, how);
  const auto first = std::find(whole[0].begin(), whole[0].end(), how.ends[0]);
  CHECK(ended[0] == std::vector<int>(whole[0].begin(), first + 1));
  const auto other = std::find(whole[1].begin(), whole[1].end(), how.ends[0]);
  CHECK(ended[1] == std::vector<int>(whole[1].begin(), other == whole[1].end() ? other : other + 1));
}

TEST_CASE("any of several tokens ends a sequence") {
  Session session{self_transport()};
  Tiny tiny{session, {.sequences = 2}};
  const auto whole = tiny.generator.generate(prompts(), 10, greedy);
  Decoding how = greedy;
  how.ends = {whole[0][6], whole[1][4]};
  const auto ended = tiny.generator.generate(prompts(), 10, how);
  for (Extent s = 0; s < 2; ++s) {
    const auto first = std::find_first_of(whole[s].begin(), whole[s].end(), how.ends.begin(), how.ends.end());
    REQUIRE(first != whole[s].end());
    CHECK(ended[s] == std::vector<int>(whole[s].begin(), first + 1));
  }
}

TEST_CASE("every layout of ranks generates the same tokens") {
  struct Layout {
    Degrees degrees;
    std::string_view recipe;
  };
  const Layout layouts[] = {{{.data = 2}, "zero3"}, {{.tensor = 3}, ""}, {{.tensor = 3, .token_split = true}, ""}, {{.pipe = 2}, ""},
                            {{.data = 2, .pipe = 2}, "zero3+gpipe"}};
  for (const auto& [degrees, recipe] : layouts) {
    const std::string layout = to_text(degrees);
    CAPTURE(layout);
    std::mutex mutex;
    std::vector<std::vector<std::vector<int>>> made;
    launch_threads(degrees.ranks(), [&](Session& session) {
      Tiny tiny{session, {.sequences = 2}, degrees, recipe};
      auto here = tiny.generator.generate(prompts(), 12, greedy);
      const std::lock_guard lock{mutex};
      made.push_back(std::move(here));
    });
    REQUIRE(made.size() == degrees.ranks());
    auto expected = std::vector{new_tokens("greedy_0", "prompt_0"), new_tokens("greedy_1", "prompt_1")};
    for (auto& tokens : expected) tokens.resize(12);
    for (const auto& rank : made) CHECK(rank == expected);
  }
}

TEST_CASE("what can't be generated is refused with the numbers that don't fit") {
  Session session{self_transport()};
  Tiny tiny{session, {.sequences = 2}};
  const auto number = [&](auto f) {
    try {
      f();
    } catch (const Error& e) {
      return e.number();
    }
    return 0;
  };
  const std::vector<std::vector<int>> three(3, {1}), empty{{}};
  CHECK_THROWS_WITH_AS(tiny.generator.generate(prompts(), 60, greedy),
                       "dsx-E720: a prompt of 5 and 60 new tokens are more than the 64 positions of the model or plan", Error);
  CHECK(number([&] { tiny.generator.generate(three, 1, greedy); }) == 721);
  CHECK(number([&] { tiny.generator.search({1}, 1, {.beams = 3}); }) == 721);
  CHECK(number([&] { tiny.generator.generate(empty, 1, greedy); }) == 722);
  CHECK(number([&] { tiny.generator.generate(prompts(), 1, {.temperature = -1}); }) == 723);
  CHECK(number([&] { tiny.generator.generate(prompts(), 1, {.top_p = 0}); }) == 723);
  CHECK(number([&] { tiny.generator.generate(prompts(), 1, {.beams = 0}); }) == 723);
  CHECK(number([&] { Generator{tiny.weights, {.length = 8, .vocabulary = 200}}; }) == 724);
}

}  // namespace
