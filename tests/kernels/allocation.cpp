// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
#include "comparison.hpp"

#include <dsx/kernels/attention.hpp>
#include <dsx/kernels/block_codec.hpp>
#include <dsx/kernels/elementwise.hpp>
#include <dsx/kernels/embedding.hpp>
#include <dsx/kernels/layer_norm.hpp>
#include <dsx/kernels/matmul.hpp>
#include <dsx/kernels/optimizer.hpp>
#include <dsx/kernels/permute.hpp>
#include <dsx/kernels/rms_norm.hpp>
#include <dsx/kernels/rope.hpp>
#include <dsx/kernels/route.hpp>
#include <dsx/kernels/swiglu.hpp>
#include <dsx/kernels/token_loss.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>

using namespace dsx;
using namespace dsx::test;

namespace {
std::atomic<long> allocations{0};
}

void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc{};
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

TEST_CASE("kernels with scratch allocate nothing") {
  const Extent rows = 80, width = 64, vocabulary = 100;
  const Heads heads{4, 2, 16};
  const std::vector<std::uint32_t> begin{0, 50, 80};
  const std::vector<Extent> groups{0, 30, 30, 80};
  std::vector<int> ids(rows, 3);
  std::vector<RowId> row_ids(rows, 9);
  Buffer<float> x{{rows, width}, 1}, y{{rows, width}, 2}, weight{{width, width}, 3}, row{{1, width}, 4}, stats{{rows, 2}, 5},
      table{{vocabulary, width}, 6};
  Buffer<float> qkv{{rows, heads.columns()}, 7}, log_sums{{rows, heads.query}, 8}, dqkv = qkv, logits{{rows, vocabulary}, 9}, state{{rows, 3}, 10};
  Buffer<float> stack{{3 * width, width}, 11}, attended{{rows, 64}, 12};
  Buffer<float> scales{{rows, 1}, 14}, half{{rows, width / 2}, 15}, turned = qkv;
  Buffer<double> loss{{1, 1}, 13};
  const Extent bytes =
      std::max(kernels::attention_scratch(rows, heads, Element::f32), kernels::matmul_scratch({x.view()}, {weight.view()}, y.view()));
  std::vector<std::byte> space(2 * bytes);
  std::vector<std::uint8_t> bytes_of_y(block_int4<64>.packed_bytes(rows * width)), signs_of_y(one_bit.packed_bytes(rows * width));
  const View packed{bytes_of_y.data(), {bytes_of_y.size(), 1}, Element::u8, Place::cpu, nullptr};
  const View signs{signs_of_y.data(), {signs_of_y.size(), 1}, Element::u8, Place::cpu, nullptr};
  const View scratch{space.data(), {space.size(), 1}, Element::u8, Place::cpu, nullptr};
  Buffer<float> router{{rows, 3}, 14}, probabilities = router, choice{{rows, 2}, 15}, permuted{{2 * rows, width}, 16};
  std::vector<std::int32_t> wanted(2 * rows), counts(3), places(2 * rows);
  std::vector<Extent> expert_begin(4);
  std::vector<RowId> expert_ids(2 * rows);
  std::int64_t live = 0;
  const auto raw = [](void* data, Shape shape, Element element) { return View{data, shape, element, Place::cpu, nullptr}; };
  const View wanted_Rk = raw(wanted.data(), {rows, 2}, Element::i32), counts_E = raw(counts.data(), {1, 3}, Element::i32),
             places_Rk = raw(places.data(), {rows, 2}, Element::i32);
  std::vector<std::byte> seat_space(kernels::seat_scratch({rows, 2}, 3));
  const auto step = [&] {
    kernels::softmax(router.view(), probabilities.view());
    kernels::best_experts(router.view(), wanted_Rk);
    kernels::seat(wanted_Rk, probabilities.view(), {20, Drop::by_probability}, row_ids.data(), wanted_Rk, counts_E,
                  raw(seat_space.data(), {seat_space.size(), 1}, Element::u8));
    kernels::choice_weights(probabilities.view(), wanted_Rk, true, choice.view());
    kernels::expert_order(wanted_Rk, counts_E, row_ids.data(), places_Rk, raw(expert_begin.data(), {1, 4}, Element::u64),
                          raw(expert_ids.data(), {2 * rows, 1}, Element::u64), raw(&live, {1, 1}, Element::i64));
    kernels::permute(x.view(), places_Rk, permuted.grad(false));
    kernels::combine(permuted.view(), choice.view(), places_Rk, y.view());
    kernels::lookup(ids, table.view(), {0, vocabulary}, x.grad(false));
    kernels::layer_norm(x.view(), row.view(), row.view(), 1e-5, y.view(), stats.view());
    kernels::matmul({y.view()}, {weight.view()}, x.grad(false), {.bias_N = row.view(), .activated_MN = y.view()}, scratch);
    kernels::grouped_matmul({x.view()}, stack.view(), false, groups, y.grad(false), scratch);
    kernels::grouped_matmul_weights(x.view(), y.view(), groups, stack.grad(false), scratch);
    kernels::attention(qkv.view(), heads, {begin}, attended.view(), log_sums.view());
    kernels::attention_pullback(qkv.view(), heads, {begin}, attended.view(), log_sums.view(), attended.view(), dqkv.grad(false), scratch);
    kernels::rope(qkv.view(), heads, ids, {}, turned.view());
    kernels::rope_pullback(turned.view(), heads, ids, {}, dqkv.grad(true));
    kernels::rms_norm(x.view(), row.view(), 1e-6, y.view(), scales.view());
    kernels::rms_norm_inputs(x.view(), row.view(), scales.view(), y.view(), y.grad(true));
    kernels::rms_norm_weights(x.view(), scales.view(), y.view(), row.grad(false));
    kernels::swiglu(x.view(), half.view());
    kernels::swiglu_pullback(x.view(), half.view(), y.grad(false));
    kernels::dropout(x.view(), y.grad(false), row_ids.data(), 0, 0.1, {});
    kernels::gelu(x.view(), y.view(), Gelu::tanh);
    kernels::gelu_pullback(x.view(), y.view(), y.grad(false), Gelu::tanh);
    kernels::quantize_with_feedback(block_int4<64>, y.view(), x.view(), packed);
    kernels::dequantize_sum(block_int4<64>, {&packed, 1}, y.grad(true));
    kernels::quantize_with_feedback(one_bit, y.view(), x.view(), signs);
    kernels::dequantize(one_bit, signs, y.grad(false));
    kernels::layer_norm_inputs(x.view(), row.view(), stats.view(), y.view(), y.grad(true));
    kernels::layer_norm_weights(x.view(), stats.view(), y.view(), row.grad(false), row.grad(false));
    kernels::column_sums(x.view(), row.grad(false));
    kernels::lookup_pullback(ids, x.view(), {0, vocabulary}, table.grad(false));
    kernels::softmax_chunk(logits.view(), ids, {0, vocabulary}, state.view(), true);
    kernels::token_loss(state.view(), ids, loss.view());
    kernels::softmax_chunk_pullback(logits.view(), ids, {0, vocabulary}, state.view(), 1);
    kernels::adamw({.rate = 1e-3}, table.view(), table.view(), table.view(), table.view(), {});
    kernels::squared_norm(table.view());
    kernels::all_finite(table.view());
    kernels::copy(x.view(), y.view());
    kernels::scale(x.view(), 0.5, x.view());
  };
  step();
  const long before = allocations;
  step();
  CHECK(allocations == before);
}
