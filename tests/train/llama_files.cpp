// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gold
#include "io/io_support.hpp"

#include <dsx/dsx.hpp>
#include <dsx/train/llama_files.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::error_of, test::TemporaryFolder;

namespace {

const std::filesystem::path golden = DSX_GOLDEN, llama = golden / "llama_tiny", qwen = golden / "qwen2_tiny",
                            mixtral = golden / "mixtral_tiny";
const ShardOptions two_shards{.largest = 170'000, .metadata = {{"format", "pt"}}};

/// Loads a folder on a layout and writes it to another.
void copy_model(const std::filesystem::path& from, const std::filesystem::path& to, Degrees degrees, auto recipe, const ShardOptions& shards = {},
                ExpertLayout layout = ExpertLayout::each) {
  launch_threads(degrees.ranks(), [&](Session& session) {
    const Mesh mesh{session, degrees};
    const LlamaConfig config = read_llama_config(from / "config.json");
    const auto copy = [&](auto model) {
      Weights weights{mesh, model, recipe};
      load_llama(from, weights);
      export_llama(to, weights, config, {}, shards, layout);
    };
    if (config.family == LlamaConfig::Family::llama) copy(make_llama(shape_of(config)));
    else if (config.family == LlamaConfig::Family::qwen2) copy(make_qwen2(shape_of(config)));
    else copy(make_mixtral(shape_of(config), router_of(config)));
  });
}
void check_same(const std::filesystem::path& a, const std::filesystem::path& b) {
  for (const char* file :
       {"model.safetensors", "model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}) {
    CAPTURE(file);
    REQUIRE(std::filesystem::exists(a / file) == std::filesystem::exists(b / file));
    if (std::filesystem::exists(a / file)) CHECK(read_file(a / file) == read_file(b / file));
  }
  CHECK(read_llama_config(a / "config.json") == read_llama_config(b / "config.json"));
}
/// Qwen2's folder with its tied head stored once more, the same or another.
void write_with_head(const std::filesystem::path& folder, bool same) {
  const SafetensorsSet stored{qwen};
  std::vector<TensorSpec> specs{{"lm_head.weight", Element::f32, {199, 48}}, {"model.layers.0.self_attn.rotary_emb.inv_freq", Element::f32, {4}}};
  for (const std::string& name : stored.names()) specs.push_back({name, Element::f32, stored.entry(name).dims});
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(qwen / "config.json", folder / "config.json", std::filesystem::copy_options::overwrite_existing);
  SafetensorsWriter writer{folder / "model.safetensors", specs};
  const auto table = stored.bytes("model.embed_tokens.weight");
  std::vector<std::byte> head(table.begin(), table.end());
  if (!same) head[3] ^= std::byte{1};
  const std::vector<std::byte> frequencies(16);
  for (const TensorSpec& spec : std::vector<TensorSpec>{writer.order()})
    writer.write(spec.name, stored.contains(spec.name)      ? stored.bytes(spec.name)
                            : spec.name == "lm_head.weight" ? std::span<const std::byte>{head}
                                                            : std::span<const std::byte>{frequencies});
  writer.commit();
}

}  // namespace

TEST_CASE("a Hugging Face Llama in two shards goes in and out byte for byte, on any layout") {
  const TemporaryFolder folder;
  copy_model(llama, folder / "one", {}, Recipe{}, two_shards);
  check_same(folder / "one", llama);
  copy_model(folder / "one", folder / "two", {.data = 2, .tensor = 2}, Recipe{ZeRO<3>{}}, two_shards);
  check_same(folder / "two", llama);
  copy_model(folder / "two", folder / "three", {.tensor = 2, .pipe = 2}, Recipe{GPipe{}});
  CHECK(std::filesystem::exists(folder / "three" / "model.safetensors"));
  copy_model(folder / "three", folder / "four", {}, Recipe{}, two_shards);
  check_same(folder / "four", llama);
}

TEST_CASE("a Hugging Face Qwen2 goes in and out byte for byte, its head tied") {
  const TemporaryFolder folder;
  copy_model(qwen, folder / "one", {.tensor = 2}, Recipe{});
  check_same(folder / "one", qwen);
  write_with_head(folder / "headed", true);
  copy_model(folder / "headed", folder / "two", {}, Recipe{});
  check_same(folder / "two", qwen);
  write_with_head(folder / "other", false);
  CHECK(error_of([&] { copy_model(folder / "other", folder / "out", {}, Recipe{}); }) == 630);
}

TEST_CASE("a Hugging Face Mixtral goes in and out byte for byte, on any layout, in shards and with a layer's experts in one tensor") {
  const TemporaryFolder folder;
  copy_model(mixtral, folder / "one", {}, Recipe{});
  check_same(folder / "one", mixtral);
  copy_model(mixtral, folder / "shards", {.data = 2, .tensor = 2}, Recipe{ZeRO<3>{}}, {.largest = 150'000});
  CHECK(std::filesystem::exists(folder / "shards" / "model-00003-of-00003.safetensors"));
  copy_model(folder / "shards", folder / "fused", {.tensor = 2, .pipe = 2}, Recipe{GPipe{}}, {}, ExpertLayout::fused);
  const SafetensorsSet fused{folder / "fused"};
  CHECK(fused.names().size() == 21);
  CHECK(fused.entry("model.layers.1.mlp.experts.gate_up_proj").dims == std::vector<Extent>{4, 112, 48});
  CHECK(fused.entry("model.layers.1.mlp.experts.down_proj").dims == std::vector<Extent>{4, 48, 56});
  copy_model(folder / "fused", folder / "two", {.tensor = 2}, Recipe{});
  check_same(folder / "two", mixtral);

  // Expert 2's first matrix stands behind two experts of gates and values, gates before values.
  const SafetensorsSet each{mixtral};
  const auto gates = each.bytes("model.layers.1.block_sparse_moe.experts.2.w1.weight");
  const auto stored = fused.bytes("model.layers.1.mlp.experts.gate_up_proj").subspan(2 * 112 * 48 * 4, gates.size());
  CHECK(std::equal(gates.begin(), gates.end(), stored.begin(), stored.end()));
}

TEST_CASE("a Mixtral is held against its file") {
  Session session{self_transport()};
  const Mesh mesh{session, {}};
  const LlamaConfig config = read_llama_config(mixtral / "config.json");
  Weights more{mesh, make_mixtral(shape_of(config), Dropless<2>{.width = 48, .experts = 6}), Recipe{}};
  CHECK(error_of([&] { load_llama(mixtral, more); }) == 629);
  Weights fewer{mesh, make_mixtral(shape_of(config), Dropless<2>{.width = 48, .experts = 3}), Recipe{}};
  CHECK(error_of([&] { load_llama(mixtral, fewer); }) == 629);
  Weights dense{mesh, make_llama(shape_of(config)), Recipe{}};
  CHECK(error_of([&] { load_llama(mixtral, dense); }) == 629);
}

TEST_CASE("the tokens that end a text are read from the generation's configuration, else from the model's") {
  const TemporaryFolder folder;
  CHECK(read_end_tokens(llama) == std::vector{198});
  CHECK(read_end_tokens(folder / "absent").empty());
  std::filesystem::create_directories(folder / "model");
  write_file(folder / "model" / "config.json", R"({"eos_token_id": 7})");
  CHECK(read_end_tokens(folder / "model") == std::vector{7});
  write_file(folder / "model" / "generation_config.json", R"({"eos_token_id": [128001, 128008, 128009]})");
  CHECK(read_end_tokens(folder / "model") == std::vector{128001, 128008, 128009});
}

TEST_CASE("bf16 weights of Llama are written as bf16") {
  const TemporaryFolder folder;
  Session session{self_transport()};
  const Mesh mesh{session, {}};
  LlamaConfig config = read_llama_config(llama / "config.json");
  config.dtype = Element::bf16;
  Weights weights{mesh, make_llama(shape_of(config)), Recipe{}};
  load_llama(llama, weights);
  export_llama(folder / "half", weights, config);
  CHECK(read_llama_config(folder / "half" / "config.json").dtype == Element::bf16);
  const SafetensorsSet half{folder / "half"};
  CHECK(half.entry("model.layers.1.self_attn.k_proj.weight").dtype == "BF16");
  CHECK(half.entry("model.layers.1.self_attn.k_proj.weight").dims == std::vector<Extent>{16, 48});
}

TEST_CASE("a Llama is held against its file") {
  Session session{self_transport()};
  const Mesh mesh{session, {}};
  const LlamaConfig config = read_llama_config(llama / "config.json");
  LlamaShape shape = shape_of(config);
  shape.hidden = 96;
  Weights narrow{mesh, make_llama(shape), Recipe{}};
  CHECK(error_of([&] { load_llama(llama, narrow); }) == 626);
  shape = shape_of(config), shape.tied = true;
  Weights tied{mesh, make_llama(shape), Recipe{}};
  CHECK(error_of([&] { load_llama(llama, tied); }) == 630);
  Weights biased{mesh, make_qwen2(shape_of(config)), Recipe{}};
  CHECK(error_of([&] { load_llama(llama, biased); }).says("lacks 9 of the model's 39 weights"));
  Weights unbiased{mesh, make_llama(shape_of(read_llama_config(qwen / "config.json"))), Recipe{}};
  CHECK(error_of([&] { load_llama(qwen, unbiased); }).says("for which the model has no place"));
}

TEST_CASE("query heads that can't share keys equally are refused: dsx-E330") {
  CHECK_THROWS_WITH_AS(make_llama({.width = 48, .heads = 6, .key_value_heads = 4, .layers = 1}),
                       "dsx-E330: 6 query heads can't share 4 heads of keys and values equally", Error);
  CHECK_THROWS_WITH_AS(make_llama({.width = 50, .heads = 6, .layers = 1}), "dsx-E307: 6 heads don't divide a width of 50", Error);
}
