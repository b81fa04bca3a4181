// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The CUDA AdamW against its formulas in double over several steps, with clipping, decay, a skipped step and bf16 weights.
///
///     check<float, bf16>(33, 1);
#ifdef DSX_NATIVE_CUDA
#include "../../kernels/cuda/launchers.hpp"
#else
#include "../support/cuda_emulation.hpp"

#include "../../kernels/cuda/adamw.cu"
#endif

#include "device_buffer.hpp"

using namespace dsx;
using namespace dsx::test;

namespace {

constexpr cuda::AdamWConstants constants{.beta_1 = 0.9, .beta_2 = 0.95, .epsilon = 1e-8, .decay = 0.1};

cuda::StepState state_of(int step) {
  return {.rate = 1e-2 / step,
          .scale = 0.25,
          .correction_1 = 1 - std::pow(constants.beta_1, step),
          .correction_2 = 1 - std::pow(constants.beta_2, step),
          .skip = step == 3};
}

struct Reference {
  std::vector<double> master, first, second;
  void advance(const std::vector<double>& gradient, const cuda::StepState& s) {
    if (s.skip) return;
    for (std::size_t i = 0; i < master.size(); ++i) {
      const double g = s.scale * gradient[i];
      first[i] = constants.beta_1 * first[i] + (1 - constants.beta_1) * g;
      second[i] = constants.beta_2 * second[i] + (1 - constants.beta_2) * g * g;
      master[i] -= s.rate * constants.decay * master[i];
      master[i] -= s.rate * (first[i] / s.correction_1) / (std::sqrt(second[i] / s.correction_2) + constants.epsilon);
    }
  }
};

template <class W, class G>
void check(Extent size, Extent shift, bool copies) {
  CAPTURE(size); CAPTURE(shift); CAPTURE(copies);
  in_each_order({0, 1, 2}, [&] {
    Reference reference{rounded<W>(numbers(size, 1)), std::vector<double>(size), std::vector<double>(size)};
    const DeviceBuffer<W> master{cast<W>(reference.master), shift}, first{size, shift}, second{size, shift};
    const DeviceBuffer<bf16> weights{copies ? size : 0, shift};
    for (int step = 1; step <= 4; ++step) {
      const std::vector<double> gradient = rounded<G>(numbers(size, 10 + unsigned(step)));
      const DeviceBuffer<G> on_gradient{cast<G>(gradient), shift};
      const DeviceBuffer<cuda::StepState> state{std::vector{state_of(step)}};
      launched([&](void* stream) {
        cuda::adamw(state.data(), constants, master.column(), on_gradient.column(), first.column(), second.column(),
                    copies ? weights.column() : master.column(), stream);
      });
      reference.advance(gradient, state_of(step));
    }
    CHECK(distance(master.read(), reference.master) < tolerance<W>);
    CHECK(distance(first.read(), reference.first) < tolerance<W>);
    CHECK(distance(second.read(), reference.second) < tolerance<W>);
    if (!copies) return;
    std::vector<bf16> wanted;
    for (const W w : master.read()) wanted.push_back(bf16{float(w)});
    CHECK(same_bits(weights.read(), wanted));
  });
}

}  // namespace

TEST_CASE("the CUDA AdamW equals its formulas over four steps, of which one is skipped") {
  for (const Extent size : {1, 15, 33, 7 * 33, 64 * 130})
    for (const Extent shift : {0, 1}) {
      check<float, float>(size, shift, false);
      check<float, bf16>(size, shift, true);
      check<float, float>(size, shift, true);
      check<double, double>(size, shift, false);
    }
}

TEST_CASE("the CUDA AdamW of more elements than its grid has threads updates each once") {
  const Extent size = 256 * 2048 + 7;  // in doubles misaligned, hence one by one
  const DeviceBuffer<double> master{std::vector<double>(size, 1.0), 1}, gradient{std::vector<double>(size, 1.0), 1}, first{size, 1}, second{size, 1};
  const DeviceBuffer<cuda::StepState> state{std::vector{cuda::StepState{.rate = 0.5, .scale = 1, .correction_1 = 0.1, .correction_2 = 0.05}}};
  launched([&](void* stream) {
    cuda::adamw(state.data(), constants, master.column(), gradient.column(), first.column(), second.column(), {}, stream);
  });
  const std::vector<double> result = master.read();
  const double wanted = 1 - 0.5 * 0.1 - 0.5 / (1 + 1e-8);
  CHECK(std::all_of(result.begin(), result.end(), [&](double w) { return std::abs(w - wanted) < 1e-12; }));
}

TEST_CASE("the CUDA AdamW refuses elements that it has no kernel for") {
  const View f32{nullptr, {8, 1}, Element::f32}, f64{nullptr, {8, 1}, Element::f64}, half{nullptr, {8, 1}, Element::f16};
  double memory = 0;
  const View other{&memory, {1, 1}, Element::f64};
  CHECK_THROWS_WITH_AS(cuda::adamw(nullptr, constants, f64, f32, f64, f64, {}, nullptr), doctest::Contains("f64 weights and f32 gradients"), Error);
  CHECK_THROWS_WITH_AS(cuda::adamw(nullptr, constants, f32, half, f32, f32, {}, nullptr), doctest::Contains("dsx-E405"), Error);
  CHECK_THROWS_WITH_AS(cuda::adamw(nullptr, constants, f32, f32, f32, f32, other, nullptr), doctest::Contains("not f32 to f64"), Error);
}
