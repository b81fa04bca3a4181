// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: resume
// needs: train_moe
// timeout: 600
/// The trainer of mixtures of experts as a program: what its metrics say of its routers, what it leaves behind, and what it refuses.
#include "support/trainer_place.hpp"

#include <dsx/comm/session.hpp>
#include <dsx/comm/transports.hpp>
#include <dsx/models/moe_options.hpp>
#include <dsx/train/llama_files.hpp>
#include <dsx/train/metrics.hpp>

#include <doctest/doctest.h>

using namespace dsx;
using test::TrainerPlace, test::programs, test::ProgramResult;

namespace {

const std::string four = "--experts 4 --balance-loss 0.1 --steps 12 --eval-every 4 ", seated = four + "--router topk --capacity-factor 0.75 ";

std::vector<StepRecord> metrics_of(const TrainerPlace& place, const std::string& flags) {
  const ProgramResult result = place.train(flags + " --metrics metrics.jsonl");
  REQUIRE_MESSAGE(result.code == 0, result.output);
  return read_metrics(place.folder / "metrics.jsonl");
}

}  // namespace

TEST_CASE("metrics say how experts are used") {
  const TrainerPlace place{"train_moe"};
  const auto free = metrics_of(place, four), limited = metrics_of(place, seated), dense = metrics_of(place, four + "--router dense");
  REQUIRE(free.size() == 12);
  for (const StepRecord& r : free) {
    REQUIRE(r.routing);
    CHECK(r.routing->dropped == 0);
    CHECK(r.routing->least_load <= 1);
    CHECK(r.routing->most_load >= 1);
    CHECK(r.routing->most_load <= 2);  // a token goes to two of four
    CHECK(r.routing->load_entropy > 0.5);
    CHECK(r.routing->load_entropy <= 1);
    CHECK(std::abs(r.routing->balance_loss - 1) < 0.5);
  }
  for (const StepRecord& r : limited) {
    CHECK(r.routing->dropped >= 0.24);  // three quarters of the seats that tokens ask for
    CHECK(r.routing->dropped < 0.6);
  }
  for (const StepRecord& r : dense) CHECK(!r.routing);
  CHECK(free.back().loss < 0.99 * free.front().loss);
}

TEST_CASE("loads are those of the whole step in every layout") {
  TrainerPlace place{"train_moe"};
  place.flags.replace(place.flags.find("--layers 1"), 10, "--layers 2");
  const auto one = metrics_of(place, four);
  for (const char* layout : {"--mesh data=2,tensor=2 --recipe zero2", "--mesh data=4,expert=2 --recipe zero3",
                             "--mesh tensor=2,pipe=2,tokens=split --micro-batches 2 --recipe gpipe+recompute"}) {
    const auto many = metrics_of(place, four + layout);
    REQUIRE(many.size() == one.size());
    for (Extent i = 0; i < 3; ++i) {
      CHECK(std::abs(many[i].loss - one[i].loss) < 1e-4);
      REQUIRE(many[i].routing);
      CHECK(std::abs(many[i].routing->most_load - one[i].routing->most_load) < 0.05);
      CHECK(std::abs(many[i].routing->least_load - one[i].routing->least_load) < 0.05);
      CHECK(std::abs(many[i].routing->balance_loss - one[i].routing->balance_loss) < 0.01);
    }
  }
}

TEST_CASE("a resumed run of experts is the run that wasn't interrupted, bit for bit") {
  const TrainerPlace place{"train_moe"};
  const std::string flags = seated + "--shared-experts 1 --dropout 0.1 --micro-batches 2 ";
  REQUIRE(place.train(flags + "--save whole --metrics whole.jsonl").code == 0);
  REQUIRE(place.train(flags + "--save-every 5 --save half --metrics half.jsonl").code == 0);
  std::filesystem::remove_all(place.folder / "half" / "step-000012");
  std::filesystem::remove_all(place.folder / "half" / "step-000010");
  const ProgramResult resumed = place.resume("half");
  CHECK_MESSAGE(resumed.code == 0, resumed.output);
  CHECK(place.weights("half/step-000012") == place.weights("whole/step-000012"));
  const auto half = read_metrics(place.folder / "half.jsonl"), whole = read_metrics(place.folder / "whole.jsonl");
  REQUIRE(half.size() == 12);
  for (Extent i = 0; i < 12; ++i) CHECK(half[i].routing == whole[i].routing);
  CHECK(half[11].validation_loss == whole[11].validation_loss);
}

TEST_CASE("an exported model is a Mixtral, and training goes on from it") {
  const TrainerPlace place{"train_moe"};
  const ProgramResult trained = place.train(four + "--sample-every 12 --save run --export hub");
  REQUIRE_MESSAGE(trained.code == 0, trained.output);
  CHECK(trained.says("sample at step 12:"));
  const auto hub = place.folder / "hub";
  const LlamaConfig config = read_llama_config(hub / "config.json");
  CHECK(config.family == LlamaConfig::Family::mixtral);
  CHECK(config.num_local_experts == 4);
  CHECK(config.num_experts_per_tok == 2);
  CHECK(config.max_position_embeddings == 16);
  CHECK(config.eos_token_ids.size() == 1);
  CHECK(std::filesystem::exists(hub / "tokenizer.json"));
  Session session{self_transport()};
  const Mesh mesh{session, {}};
  Weights from_hub{mesh, make_mixtral(shape_of(config), router_of(config)), Recipe{}};
  Weights from_run{mesh, make_moe({.experts = 4}, config), Recipe{}, 2};
  load_llama(hub, from_hub);
  load_llama(place.folder / "run" / "step-000012", from_run);
  for (const ParameterRecord& r : from_hub.records()) CHECK_MESSAGE(from_hub.weight(r.path) == from_run.weight(r.path), r.path);

  const auto more = metrics_of(place, "--load hub --steps 1 --eval-every 1");
  CHECK(std::abs(*more[0].validation_loss - *read_metrics(place.folder / "metrics.jsonl")[0].validation_loss) < 1);
  const ProgramResult refused = place.train("--steps 1 --export other --shared-experts 1");
  CHECK(refused.code == 1);
  CHECK(refused.says("dsx-E331: a Mixtral has no shared experts"));
  CHECK(place.train("--steps 1 --export other --router dense").says("dsx-E331: a Mixtral's layers have a router"));
  CHECK(place.train("--steps 1 --export other --top-k 1").says("dsx-E331: a Mixtral weighs the only expert"));
}

TEST_CASE("a mixture that can't be trained gets one line with its values and exit code 1") {
  const TrainerPlace place{"train_moe"};
  const std::pair<std::string, std::string> cases[] = {{"--router topk", "dsx-E346: a capacity factor of 0 for the router topk"},
                                                       {"--capacity-factor 1.5", "dsx-E346: a capacity factor of 1.5 for the router dropless"},
                                                       {"--capacity-factor -1", "--capacity-factor: -1 is no number from 0 up"},
                                                       {"--top-k 9", "dsx-E347"},
                                                       {"--top-k 0", "--top-k: 0 is no number from 1 to 64"},
                                                       {"--router best", "--router: best not in"},
                                                       {"--key-value-heads 3", "dsx-E330: 2 query heads can't share 3"},
                                                       {"--load " DSX_GOLDEN "/gpt2_tiny", "dsx-E635"},
                                                       {"--load " DSX_GOLDEN "/mixtral_tiny", "dsx-E712"}};
  for (const auto& [flags, message] : cases) {
    const ProgramResult result = place.train("--steps 1 --eval-every 0 " + flags);
    CHECK_MESSAGE(result.code == 1, flags);
    CHECK_MESSAGE(result.says(message), flags << ": " << result.output);
    CHECK_MESSAGE(!result.says("step 1/1"), flags);
  }
  CHECK(place.run(programs + "train_moe --help").says("--shared-experts"));
  const ProgramResult dry = place.run(programs +
                                      "train_moe --dry --layers 32 --width 4096 --heads 32 --key-value-heads 8 --hidden 14336 --vocabulary 32000 "
                                      "--context 4096 --batch 64 --mesh data=8,tensor=8 --recipe zero3+bf16+recompute");
  CHECK_MESSAGE(dry.code == 0, dry.output);
  for (const char* text : {"rank 0 of 64", "46.7 G parameters", "all_gather over data of 8, bf16"}) CHECK_MESSAGE(dry.says(text), text);
}
