// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gold
/// Generation by the small Llama, Qwen2 and Mixtral of tests/golden: Hugging Face's tokens, with a cache of turned keys and by whole passes, on every
/// layout of ranks.
#include "support/stored.hpp"

#include <dsx/comm/mesh_text.hpp>
#include <dsx/infer/generator.hpp>
#include <dsx/recipes.hpp>
#include <dsx/train/llama_files.hpp>

#include <doctest/doctest.h>

#include <mutex>

using namespace dsx;

namespace {

using Texts = std::vector<std::vector<int>>;

template <class Model>
Model make(const LlamaConfig& config) {
  if constexpr (std::same_as<Model, Llama>) return make_llama(shape_of(config));
  else if constexpr (std::same_as<Model, Qwen2>) return make_qwen2(shape_of(config));
  else return make_mixtral(shape_of(config), Dropless<2>{.width = config.hidden_size, .experts = config.num_local_experts});
}

/// A golden model with a generator, on one rank of any mesh.
template <class Model>
struct Tiny {
  Mesh mesh;
  LlamaConfig config;
  Weights<Model, AnyRecipe> weights;
  Generator<Weights<Model, AnyRecipe>> generator;

  Tiny(const std::string& folder, Session& session, bool cached, Degrees degrees = {}, std::string_view recipe = "")
      : mesh{session, degrees},
        config{read_llama_config(test::golden(folder + "/config.json"))},
        weights{mesh, make<Model>(config), choose_recipe(recipe, degrees.pipe)},
        generator{weights, {.sequences = 2, .length = config.max_position_embeddings, .vocabulary = config.vocab_size, .cached = cached}} {
    load_llama(test::golden(folder), weights);
  }
};

struct Answers {
  Texts prompts{}, made{};
  explicit Answers(const std::string& folder) {
    const SafetensorsFile expected{test::golden(folder + "/expected.safetensors")};
    for (const std::string i : {"0", "1"}) {
      const std::vector<int> whole = test::integers(expected, "greedy_" + i);
      prompts.push_back(test::integers(expected, "prompt_" + i));
      made.emplace_back(whole.begin() + std::ptrdiff_t(prompts.back().size()), whole.end());
    }
  }
};

template <class Model>
void check_tokens(const std::string& folder) {
  const Answers answers{folder};
  CHECK(answers.made[0].size() == 16);
  for (const bool cached : {true, false}) {
    CAPTURE(cached);
    Session session{self_transport()};
    Tiny<Model> tiny{folder, session, cached};
    CHECK(tiny.generator.generate(answers.prompts, 16, {.temperature = 0}) == answers.made);
  }
}

template <class Model>
void check_layouts(const std::string& folder) {
  const Answers answers{folder};
  const std::pair<Degrees, std::string_view> layouts[] = {
      {{.tensor = 2}, ""}, {{.tensor = 2, .token_split = true}, ""}, {{.pipe = 2}, ""}, {{.data = 2, .tensor = 2, .pipe = 2}, "zero3+gpipe"}};
  for (const auto& [degrees, recipe] : layouts) {
    const std::string layout = to_text(degrees);
    CAPTURE(layout);
    std::mutex mutex;
    std::vector<Texts> made;
    launch_threads(degrees.ranks(), [&](Session& session) {
      Tiny<Model> tiny{folder, session, true, degrees, recipe};
      auto here = tiny.generator.generate(answers.prompts, 16, {.temperature = 0});
      const std::lock_guard lock{mutex};
      made.push_back(std::move(here));
    });
    REQUIRE(made.size() == degrees.ranks());
    for (const Texts& rank : made) CHECK(rank == answers.made);
  }
}

template <class Model>
void check_cache(const std::string& folder) {
  const Answers answers{folder};
  const Decoding how{.temperature = 0.9, .top_k = 50, .top_p = 0.95, .seed = 11};
  Session one{self_transport()}, two{self_transport()};
  Tiny<Model> cached{folder, one, true}, whole{folder, two, false};
  CHECK(cached.generator.generate(answers.prompts, 20, how) == whole.generator.generate(answers.prompts, 20, how));
  CHECK(cached.generator.search(answers.prompts[0], 6, {.beams = 2}).tokens == whole.generator.search(answers.prompts[0], 6, {.beams = 2}).tokens);
}

}  // namespace

TEST_CASE("Llama's greedy tokens are Hugging Face's, with a cache and without one") { check_tokens<Llama>("llama_tiny"); }
TEST_CASE("Qwen2's greedy tokens are Hugging Face's, with a cache and without one") { check_tokens<Qwen2>("qwen2_tiny"); }

TEST_CASE("Mixtral's greedy tokens are Hugging Face's, with a cache and without one") { check_tokens<Mixtral>("mixtral_tiny"); }

TEST_CASE("every layout of ranks generates Mixtral's tokens") { check_layouts<Mixtral>("mixtral_tiny"); }
TEST_CASE("every layout of ranks generates Llama's tokens") { check_layouts<Llama>("llama_tiny"); }
TEST_CASE("every layout of ranks generates Qwen2's tokens") { check_layouts<Qwen2>("qwen2_tiny"); }

TEST_CASE("a cache of turned keys changes no sampled token and no beam of Llama") { check_cache<Llama>("llama_tiny"); }
TEST_CASE("a cache changes no sampled token and no beam of Mixtral, whose experts meet one token a turn") { check_cache<Mixtral>("mixtral_tiny"); }
