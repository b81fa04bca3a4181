// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// `train_gpt2 --dry --recipe`: every name plans a step, and bytes and traffic are where the policy promises them.
// labels: bytes wire
// needs: train_gpt2
// timeout: 600
#include "io/io_support.hpp"

#include <dsx/io/atomic_file.hpp>
#include <dsx/recipes.hpp>

#include <doctest/doctest.h>

using namespace dsx;

namespace {

struct Plan {
  int code = -1;
  std::string text{};
  bool says(std::string_view part) const { return text.find(part) != text.npos; }
  /// Of a row of the report, such as "state on the host"; 0 where there is none.
  double bytes(const std::string& row) const {
    const auto line = text.find("\n  " + row + "  "), end = text.find(" bytes\n", line);
    if (line == text.npos || text.find('\n', line + 1) < end) return 0;
    return std::stod(text.substr(text.rfind("  ", end) + 2));
  }
  /// What a policy changes on the device, as its line says: "+", "-" or "0" begins it.
  char on_device(const std::string& name) const {
    const auto line = text.find("\n  " + name + " ");
    return line == text.npos ? ' ' : text[text.find_first_not_of(' ', line + 3 + name.size())];
  }
};
Plan dry(const std::string& recipe, const char* mesh = "data=4,inner=2") {
  const test::TemporaryFolder folder;
  const std::string log = (folder / "log").string();
  const std::string command = concat(DSX_BINARY_DIR "/examples/train_gpt2 --dry --layers 4 --width 64 --heads 4 --vocabulary 512 --context 32 "
                                     "--batch 16 --micro-batches 2 --mesh ", mesh, " --recipe ", recipe, " > ", log, " 2>&1");
  const int status = std::system(command.c_str());
  return {status, read_file(log)};
}

}  // namespace

TEST_CASE("every recipe's name and every blend plans a step") {
  const auto plans = [](std::string_view name) {
    const auto words = recipe_words(name);
    const auto has = [&](std::string_view word) { return std::find(words.begin(), words.end(), word) != words.end(); };
    const bool piped = has("gpipe") || has("1f1b") || has("interleaved");
    const Plan plan = dry(std::string{name}, piped ? "data=2,inner=2,pipe=2" : "data=4,inner=2");
    CHECK_MESSAGE(plan.code == 0, name << ": " << plan.text);
    CHECK_MESSAGE(plan.bytes("weights") + plan.bytes("weights on the host") + plan.bytes("weights on the disk") > 0, name);
  };
  for (const RecipeName& r : recipe_names) plans(r.name);
  for (const RecipeBlend& b : recipe_blends) plans(b.name);
}

TEST_CASE("a plan's bytes rest where the recipe puts them, and each policy's line says what it changes") {
  const Plan plain = dry("zero2"), state = dry("zero2+host_state"), disk = dry("zero2+disk"), zero3 = dry("zero3"), again = dry("recompute"),
             saved = dry("host_activations"), all = dry("replicate");
  CHECK(plain.bytes("state") > 0);
  CHECK(state.bytes("state") == 0);
  CHECK(state.bytes("state on the host") >= plain.bytes("state"));  // and a master of its own
  CHECK(state.on_device("host_state") == '-');
  for (const char* kind : {"weights", "gradients", "state", "saved"}) CHECK_MESSAGE(disk.bytes(concat(kind, " on the disk")) > 0, kind);
  CHECK(disk.bytes("weights") + disk.bytes("gradients") + disk.bytes("state") == 0);
  CHECK(saved.bytes("saved on the host") > 0);
  CHECK(saved.bytes("saved") < all.bytes("saved"));
  CHECK(again.bytes("saved") < all.bytes("saved"));
  CHECK(again.on_device("recompute") == '-');
  CHECK(4 * zero3.bytes("weights") < 1.1 * all.bytes("weights"));
  CHECK(4 * zero3.bytes("state") < 1.1 * all.bytes("state"));
  CHECK(zero3.says("all_gather over data of 4, f32"));
  CHECK_FALSE(all.says("all_gather over data"));
  CHECK(zero3.on_device("zero3") == '-');
  CHECK_FALSE(all.says("each policy, against"));  // an identity changes nothing
}
