// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gold
/// Llama and Qwen2 against Hugging Face's golden models.
#include "support/tiny_llama.hpp"

using namespace dsx;
using namespace dsx::test;


TEST_CASE("Llama's logits and every hidden state equal Hugging Face's") {
  for (const AnyPrecision& precision : {AnyPrecision{Fp32{}}, AnyPrecision{Fp64{}}}) check_values<Llama>("llama_tiny", precision);
}

TEST_CASE("Qwen2's logits and every hidden state equal Hugging Face's") {
  for (const AnyPrecision& precision : {AnyPrecision{Fp32{}}, AnyPrecision{Fp64{}}}) check_values<Qwen2>("qwen2_tiny", precision);
}

TEST_CASE("in bf16 Llama and Qwen2 lose as much as in float, but for rounding") {
  const auto loss = [](auto& c) {
    Evaluator evaluator{c.weights, TokenLoss{64}, 51};
    const MicroBatch batch = c.batch();
    return relative(evaluator.loss(std::span{&batch, 1}), numbers(c.expected, "loss")[0]);
  };
  Session one{self_transport()}, two{self_transport()};
  TinyLlama<Llama> llama{"llama_tiny", one, Bf16{}};
  TinyLlama<Qwen2> qwen2{"qwen2_tiny", two, Bf16{}};
  CHECK(loss(llama) < 1e-2);
  CHECK(loss(qwen2) < 1e-2);
}

TEST_CASE("Llama's loss and all 30 gradients equal Hugging Face's on every layout") {
  Session session{self_transport()};
  CHECK(TinyLlama<Llama>{"llama_tiny", session, Fp32{}}.names.size() == 30);
  check_layouts<Llama>("llama_tiny");
}

TEST_CASE("Qwen2's loss and all 26 gradients equal Hugging Face's on every layout") {
  Session session{self_transport()};
  CHECK(TinyLlama<Qwen2>{"qwen2_tiny", session, Fp32{}}.names.size() == 26);
  check_layouts<Qwen2>("qwen2_tiny");
}
