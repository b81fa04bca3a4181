// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gold
#include "io/io_support.hpp"

#include <dsx/dsx.hpp>
#include <dsx/train/gpt2_files.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::error_of, test::TemporaryFolder;

namespace {

const std::filesystem::path tiny = std::filesystem::path{DSX_GOLDEN} / "gpt2_tiny";

/// Loads a folder on a layout and writes it to another.
void copy_model(const std::filesystem::path& from, const std::filesystem::path& to, Degrees degrees, auto recipe) {
  launch_threads(degrees.ranks(), [&](Session& session) {
    const Mesh mesh{session, degrees};
    const GptConfig config = read_gpt2_config(from / "config.json");
    Weights weights{mesh, make_gpt2(shape_of(config)), recipe};
    load_gpt2(from, weights);
    export_gpt2(to, weights, config);
  });
}
/// The tiny model as the hub spells it: without prefix, with masks, and with a head that may differ from the table.
void write_hub_file(const std::filesystem::path& folder, bool same_head) {
  const SafetensorsSet stored{tiny};
  std::vector<TensorSpec> specs{{"lm_head.weight", Element::f32, {199, 48}}, {"h.0.attn.bias", Element::f32, {1, 1, 2, 2}}};
  for (const std::string& name : stored.names()) specs.push_back({name.substr(12), Element::f32, stored.entry(name).dims});
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(tiny / "config.json", folder / "config.json", std::filesystem::copy_options::overwrite_existing);
  SafetensorsWriter writer{folder / "model.safetensors", specs};
  std::vector<std::byte> head(stored.bytes("transformer.wte.weight").begin(), stored.bytes("transformer.wte.weight").end());
  if (!same_head) head[3] ^= std::byte{1};
  const std::vector<std::byte> mask(16);
  for (const TensorSpec& spec : std::vector<TensorSpec>{writer.order()})
    writer.write(spec.name, spec.name == "lm_head.weight" ? std::span<const std::byte>{head}
                            : spec.name == "h.0.attn.bias" ? std::span<const std::byte>{mask} : stored.bytes("transformer." + spec.name));
  writer.commit();
}

}  // namespace

TEST_CASE("a Hugging Face GPT-2 goes in and out byte for byte, on any layout") {
  const TemporaryFolder folder;
  const std::string bytes = read_file(tiny / "model.safetensors");
  copy_model(tiny, folder / "one", {}, Recipe{});
  CHECK(read_file(folder / "one" / "model.safetensors") == bytes);
  CHECK(read_gpt2_config(folder / "one" / "config.json") == read_gpt2_config(tiny / "config.json"));
  copy_model(folder / "one", folder / "two", {.data = 2, .tensor = 3}, Recipe{ZeRO<3>{}});
  CHECK(read_file(folder / "two" / "model.safetensors") == bytes);
  copy_model(folder / "two", folder / "three", {.pipe = 2}, Recipe{GPipe{}});
  CHECK(read_file(folder / "three" / "model.safetensors") == bytes);
}

TEST_CASE("the hub's spelling is read too, and a head that isn't the table is refused") {
  const TemporaryFolder folder;
  write_hub_file(folder / "hub", true);
  copy_model(folder / "hub", folder / "out", {}, Recipe{});
  CHECK(read_file(folder / "out" / "model.safetensors") == read_file(tiny / "model.safetensors"));
  write_hub_file(folder / "other", false);
  CHECK(error_of([&] { copy_model(folder / "other", folder / "out", {}, Recipe{}); }) == 630);
}

TEST_CASE("a model is held against what is asked of it, and against its file") {
  const auto longer = error_of([] { config_for(tiny, 65, 199); });
  CHECK(longer == 711);
  CHECK(longer.says("a context of 65 tokens; the model in "));
  CHECK(longer.says(" has 64 positions"));
  CHECK(error_of([] { config_for(tiny, 64, 200); }) == 712);
  CHECK(config_for(tiny, 64, 199).n_layer == 4);
  Gpt2Shape dropping = shape_of(read_gpt2_config(tiny / "config.json"), 0.2);
  CHECK(dropping.attention_dropout == 0.2);
  dropping.attention_dropout = 0.3;
  const GptConfig written = config_of(dropping);
  CHECK(written.dropout_residual == 0.2);
  CHECK(written.dropout_embedding == 0.2);
  CHECK(written.dropout_attention == 0.3);

  Session session{self_transport()};
  const Mesh mesh{session, {}};
  Gpt2Shape shape = shape_of(read_gpt2_config(tiny / "config.json"));
  shape.width = 96;
  Weights wide{mesh, make_gpt2(shape), Recipe{}};
  CHECK(error_of([&] { load_gpt2(tiny, wide); }) == 626);
}
