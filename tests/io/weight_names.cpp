// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Tables of weight names: expansion, the file's prefix, what is absent, left over or stored twice.
#include "io_support.hpp"

#include <dsx/io/weight_names.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using namespace dsx::test;

namespace {

constexpr NamePattern gpt2[] = {{"table.weight", "wte.weight"},
                                {"positions.weight", "wpe.weight"},
                                {"blocks.{i}.norm1.gain", "h.{i}.ln_1.weight"},
                                {"blocks.{i}.norm1.bias", "h.{i}.ln_1.bias"},
                                {"blocks.{i}.qkv.weight", "h.{i}.attn.c_attn.weight"},
                                {"blocks.{i}.qkv.bias", "h.{i}.attn.c_attn.bias"},
                                {"blocks.{i}.out.weight", "h.{i}.attn.c_proj.weight"},
                                {"blocks.{i}.out.bias", "h.{i}.attn.c_proj.bias"},
                                {"blocks.{i}.norm2.gain", "h.{i}.ln_2.weight"},
                                {"blocks.{i}.norm2.bias", "h.{i}.ln_2.bias"},
                                {"blocks.{i}.up.weight", "h.{i}.mlp.c_fc.weight"},
                                {"blocks.{i}.up.bias", "h.{i}.mlp.c_fc.bias"},
                                {"blocks.{i}.down.weight", "h.{i}.mlp.c_proj.weight"},
                                {"blocks.{i}.down.bias", "h.{i}.mlp.c_proj.bias"},
                                {"norm.gain", "ln_f.weight"},
                                {"norm.bias", "ln_f.bias"}};
constexpr NameIndex four_layers[] = {{'i', 4}}, three_layers[] = {{'i', 3}}, five_layers[] = {{'i', 5}};
constexpr std::string_view buffers[] = {"h.{i}.attn.bias", "h.{i}.attn.masked_bias", "lm_head.weight"};

/// A folder's file with one byte in each tensor; `values` gives those that aren't 0.
SafetensorsSet file_of(const TemporaryFolder& folder, const std::vector<std::pair<std::string, char>>& values) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, value] : values) specs.push_back({name, Element::u8, {1}});
  SafetensorsWriter writer{folder / "model.safetensors", specs};
  for (const TensorSpec& spec : writer.order())
    for (const auto& [name, value] : values)
      if (name == spec.name) writer.write(name, std::as_bytes(std::span{&value, 1}));
  writer.commit();
  return SafetensorsSet{folder.path()};
}

}  // namespace

TEST_CASE("patterns expand layer by layer, indices within indices") {
  constexpr NamePattern table[] = {
      {"a", "A"}, {"l.{i}.w", "L{i}.w", true}, {"l.{i}.e.{e}.u", "L{i}.{e}.u"}, {"l.{i}.e.{e}.d", "L{i}.{e}.d"}, {"z", "Z"}};
  constexpr NameIndex indices[] = {{'i', 2}, {'e', 2}};
  std::string ours, theirs, turned;
  for (const WeightName& name : expand(table, indices)) ours += name.ours + " ", theirs += name.theirs + " ", turned += name.transposed ? '1' : '0';
  CHECK(ours == "a l.0.w l.0.e.0.u l.0.e.0.d l.0.e.1.u l.0.e.1.d l.1.w l.1.e.0.u l.1.e.0.d l.1.e.1.u l.1.e.1.d z ");
  CHECK(theirs == "A L0.w L0.0.u L0.0.d L0.1.u L0.1.d L1.w L1.0.u L1.0.d L1.1.u L1.1.d Z ");
  CHECK(turned == "010000100000");
}

TEST_CASE("a pattern whose sides have other indices is refused") {
  constexpr NamePattern one_side[] = {{"l.{i}.w", "w"}}, unknown[] = {{"l.{k}.w", "L{k}.w"}};
  CHECK(error_of([&] { expand(one_side, four_layers); }).says("dsx-E629: \"l.{i}.w\" and \"w\" don't both have the index {i}"));
  CHECK(error_of([&] { expand(unknown, four_layers); }) == 629);
}

TEST_CASE("a GPT-2 of Hugging Face has a place for each of its tensors") {
  const SafetensorsSet file{std::filesystem::path{DSX_GOLDEN} / "gpt2_tiny"};
  const auto names = find_weights(file, expand(gpt2, four_layers), {.prefix = "transformer.", .ignored = buffers});
  CHECK(names.size() == file.names().size());
  CHECK(names[2].ours == "blocks.0.norm1.gain");
  CHECK(names[2].theirs == "transformer.h.0.ln_1.weight");
  const Refusal absent = error_of([&] { find_weights(file, expand(gpt2, five_layers), {.prefix = "transformer."}); });
  CHECK(absent == 629);
  CHECK(absent.says("lacks 12 of the model's 64 weights, first \"transformer.h.4.ln_1.weight\" for blocks.4.norm1.gain"));
  const Refusal left_over = error_of([&] { find_weights(file, expand(gpt2, three_layers), {.prefix = "transformer."}); });
  CHECK(left_over == 629);
  CHECK(left_over.says("has the tensor \"transformer.h.3."));
}

TEST_CASE("a file without prefix but with buffers is read too") {
  const TemporaryFolder folder;
  constexpr NamePattern table[] = {{"t", "wte.weight"}, {"b.{i}", "h.{i}.w"}};
  constexpr NameIndex two[] = {{'i', 2}};
  std::vector<std::pair<std::string, char>> tensors{{"wte.weight", 1},           {"h.0.w", 0},         {"h.1.w", 0}, {"h.0.attn.bias", 0},
                                                    {"h.1.attn.masked_bias", 0}, {"lm_head.weight", 1}};
  const auto found = [&] { return find_weights(file_of(folder, tensors), expand(table, two), {.prefix = "transformer.", .ignored = buffers}); };
  CHECK(found()[0].theirs == "wte.weight");
  CHECK(error_of([&] { find_weights(file_of(folder, tensors), expand(table, two)); }) == 629);
  tensors.push_back({"h.x.attn.bias", 0});
  CHECK(error_of(found).says("\"h.x.attn.bias\""));
  for (auto& [name, value] : tensors)
    if (name != "lm_head.weight") name = "transformer." + name;
  tensors.back().first = "transformer.h.10.attn.bias";
  CHECK(found()[2].theirs == "transformer.h.1.w");
}

TEST_CASE("a tied weight stored twice has to be the same") {
  const TemporaryFolder folder;
  CHECK(!check_tied(file_of(folder, {{"wte.weight", 5}}), "lm_head.weight", "wte.weight"));
  CHECK(check_tied(file_of(folder, {{"wte.weight", 5}, {"lm_head.weight", 5}}), "lm_head.weight", "wte.weight"));
  const Refusal refusal = error_of([&] { check_tied(file_of(folder, {{"wte.weight", 5}, {"lm_head.weight", 6}}), "lm_head.weight", "wte.weight"); });
  CHECK(refusal == 630);
  CHECK(refusal.says("\"lm_head.weight\" is tied to \"wte.weight\", but differs from byte 0 on"));
  CHECK(error_of([&] { check_tied(file_of(folder, {{"lm_head.weight", 6}}), "lm_head.weight", "wte.weight"); }) == 625);
  const SafetensorsSet tiny{std::filesystem::path{DSX_GOLDEN} / "gpt2_tiny"};
  CHECK(error_of([&] { check_tied(tiny, "transformer.wpe.weight", "transformer.wte.weight"); }) == 630);
}
