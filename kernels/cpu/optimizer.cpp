// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The optimizers' passes on the host: slices over threads.
#include "optimizer_body.hpp"
#include "support.hpp"

#include "cuda/launchers.hpp"

#include <array>

namespace dsx::kernels {
namespace {

template <class W, class G, class O>
struct Types {};

/// f(Types<W, G, O>) for the triples of master, gradient and result that occur; others are refused.
template <class F>
void dispatch_optimizer(std::string_view kernel, Element master, Element gradient, Element result, F&& f) {
  const auto is = [&](Element w, Element g, Element o) { return master == w && gradient == g && result == o; };
  using enum Element;
  if (is(f32, f32, f32)) return f(Types<float, float, float>{});
  if (is(f32, f32, bf16)) return f(Types<float, float, dsx::bf16>{});
  if (is(f32, bf16, f32)) return f(Types<float, dsx::bf16, float>{});
  if (is(f32, bf16, bf16)) return f(Types<float, dsx::bf16, dsx::bf16>{});
  if (is(f64, f64, f64)) return f(Types<double, double, double>{});
  if (is(f64, f64, f32)) return f(Types<double, double, float>{});
  if (is(f64, f64, bf16)) return f(Types<double, double, dsx::bf16>{});
  if (is(f64, f32, f64)) return f(Types<double, float, double>{});
  if (is(f64, f32, f32)) return f(Types<double, float, float>{});
  if (is(f64, bf16, f64)) return f(Types<double, dsx::bf16, double>{});
  if (is(f64, bf16, bf16)) return f(Types<double, dsx::bf16, dsx::bf16>{});
  fail<405>("kernels::", kernel, " has no body for ", name_of(master), " master weights, ", name_of(gradient), " gradients and ", name_of(result),
            " results");
}

/// Where the cast result goes: null where there is none, or where it is the master itself.
template <class O>
O* cast_result(const View& master, const View& weights) {
  return weights.data == master.data ? nullptr : weights.pointer<O>();
}
Element cast_element(const View& master, const View& weights) { return weights.data ? weights.element : master.element; }

void same_states(std::string_view kernel, const View& master, const View& gradient, const View& weights, std::initializer_list<View> states) {
  same_shape(kernel, master, gradient);
  if (weights.data) same_shape(kernel, master, weights);
  for (const View& state : states) same_shape(kernel, master, state), same_element(kernel, master, state);
}

}  // namespace

void adamw(const AdamWStep& step, View master, View gradient, View first, View second, View weights) {
  same_states("adamw", master, gradient, weights, {first, second});
  if (const Stream* s = gpu_stream("adamw", {master, gradient, first, second, weights})) {
    static_assert(sizeof(cuda::StepState) <= Stream::step_bytes);
    auto* const state = static_cast<cuda::StepState*>(s->step_memory());
    cuda::set(state, {step.rate, step.scale, step.correction_1, step.correction_2, 0}, s->handle());
    return cuda::adamw(state, {step.beta_1, step.beta_2, step.epsilon, step.decay}, master, gradient, first, second, weights, s->handle());
  }
  dispatch_optimizer("adamw", master.element, gradient.element, cast_element(master, weights), [&]<class W, class G, class O>(Types<W, G, O>) {
    const auto& body = pick<OptimizerBody<W, G, O>>();
    O* const result = cast_result<O>(master, weights);
    in_ranges(master.size(), 4, [&](Range r) {
      body.adamw(step, master.pointer<W>() + r.begin, gradient.pointer<G>() + r.begin, first.pointer<W>() + r.begin, second.pointer<W>() + r.begin,
                 result ? result + r.begin : nullptr, r.size());
    });
  });
}

void adamw_frozen(const AdamWStep& step, View master, View first, View second, View weights) {
  on_host("adamw_frozen", {master, first, second, weights});
  same_states("adamw_frozen", master, first, weights, {first, second});
  dispatch_optimizer("adamw_frozen", master.element, master.element, cast_element(master, weights), [&]<class W, class G, class O>(Types<W, G, O>) {
    const auto& body = pick<OptimizerBody<W, G, O>>();
    O* const result = cast_result<O>(master, weights);
    in_ranges(master.size(), 4, [&](Range r) {
      body.adamw_frozen(step, master.pointer<W>() + r.begin, first.pointer<W>() + r.begin, second.pointer<W>() + r.begin,
                        result ? result + r.begin : nullptr, r.size());
    });
  });
}

void blend(double kept, double fresh, View gradient, View momentum_state) {
  on_host("blend", {gradient, momentum_state});
  same_states("blend", momentum_state, gradient, {}, {});
  dispatch_optimizer("blend", momentum_state.element, gradient.element, momentum_state.element, [&]<class W, class G, class O>(Types<W, G, O>) {
    const auto& body = pick<OptimizerBody<W, G, O>>();
    in_ranges(gradient.size(), 4,
              [&](Range r) { body.blend(kept, fresh, gradient.pointer<G>() + r.begin, momentum_state.pointer<W>() + r.begin, r.size()); });
  });
}

void sgd(const SgdStep& step, View master, View gradient, View velocity, View weights) {
  on_host("sgd", {master, gradient, velocity, weights});
  same_states("sgd", master, gradient, weights, {});
  if (velocity.data) same_states("sgd", master, gradient, weights, {velocity});
  dispatch_optimizer("sgd", master.element, gradient.element, cast_element(master, weights), [&]<class W, class G, class O>(Types<W, G, O>) {
    const auto& body = pick<OptimizerBody<W, G, O>>();
    O* const result = cast_result<O>(master, weights);
    in_ranges(master.size(), 4, [&](Range r) {
      body.sgd(step, master.pointer<W>() + r.begin, gradient.pointer<G>() + r.begin, velocity.data ? velocity.pointer<W>() + r.begin : nullptr,
               result ? result + r.begin : nullptr, r.size());
    });
  });
}

void muon_momentum(double momentum, double scale, View gradient, View momentum_state, View out) {
  on_host("muon_momentum", {momentum_state, gradient, out});
  same_states("muon_momentum", momentum_state, gradient, out, {});
  dispatch_optimizer("muon_momentum", momentum_state.element, gradient.element, out.element, [&]<class W, class G, class O>(Types<W, G, O>) {
    const auto& body = pick<OptimizerBody<W, G, O>>();
    in_ranges(gradient.size(), 4, [&](Range r) {
      body.muon_momentum(momentum, scale, gradient.pointer<G>() + r.begin, momentum_state.pointer<W>() + r.begin, out.pointer<O>() + r.begin,
                         r.size());
    });
  });
}

void step_along(double step, double rate_decay, View master, View direction, View weights) {
  on_host("step_along", {master, direction, weights});
  same_states("step_along", master, direction, weights, {});
  dispatch_optimizer("step_along", master.element, direction.element, cast_element(master, weights), [&]<class W, class G, class O>(Types<W, G, O>) {
    const auto& body = pick<OptimizerBody<W, G, O>>();
    O* const result = cast_result<O>(master, weights);
    in_ranges(master.size(), 4, [&](Range r) {
      body.step_along(step, rate_decay, master.pointer<W>() + r.begin, direction.pointer<G>() + r.begin, result ? result + r.begin : nullptr,
                      r.size());
    });
  });
}

/// Parts of a reduction: a number that doesn't depend on the threads, so the bits don't either.
constexpr Extent reduction_parts = 64;

double squared_norm(View x) {
  on_host("squared_norm", {x});
  double parts[reduction_parts];
  dispatch(x.element, [&](auto zero) {
    using T = decltype(zero);
    const auto& body = pick<NormBody<T>>();
    in_parallel(reduction_parts, x.size(), [&](Extent i) {
      const Range r = share({0, x.size()}, reduction_parts, i);
      parts[i] = body.squared_norm(x.pointer<T>() + r.begin, r.size());
    });
  });
  double sum = 0;
  for (const double part : parts) sum += part;
  return sum;
}

namespace {

/// Adds the fractions of numbers of one exponent up as integers, in two halves, so that a number costs two additions and no shift.
template <class T>
ExactSum squares_of(const T* x, Extent count) {
  constexpr int exponents = 2'048;
  constexpr std::uint64_t hidden = std::uint64_t(1) << 52, low_32 = 0xFFFFFFFF;
  std::array<std::array<std::uint64_t, 2>, exponents> halves{};
  ExactSum sum;
  for (Extent i = 0; i < count; ++i) {
    const double g = double(x[i]);
    const auto bits = std::bit_cast<std::uint64_t>(g * g) & ~(std::uint64_t(1) << 63);  // a NaN may have a sign
    const std::uint64_t exponent = bits >> 52, fraction = (bits & (hidden - 1)) | (exponent ? hidden : 0);
    halves[exponent][0] += fraction & low_32, halves[exponent][1] += fraction >> 32;
  }
  for (int e = 0; e < exponents - 1; ++e)
    for (int half = 0; half < 2; ++half)
      if (const std::uint64_t units = halves[std::size_t(e)][std::size_t(half)]) sum.add(units, (e ? e - 1 : 0) + 32 * half);
  if (halves.back()[1] != 0)
    for (Extent i = 0; i < count; ++i)
      if (const double g = double(x[i]); !std::isfinite(g * g)) sum.add(g * g);
  return sum;
}

}  // namespace

void add_squares(View x, ExactSum& sum) {
  on_host("add_squares", {x});
  constexpr Extent parts = 16;
  std::array<ExactSum, parts> sums{};
  dispatch(x.element, [&](auto zero) {
    using T = decltype(zero);
    in_parallel(parts, 4 * x.size(), [&](Extent i) {
      const Range r = share({0, x.size()}, parts, i);
      sums[i] = squares_of(x.pointer<T>() + r.begin, r.size());
    });
  });
  for (const ExactSum& part : sums) sum.add(part);
}

bool all_finite(View x) {
  on_host("all_finite", {x});
  bool parts[reduction_parts];
  dispatch(x.element, [&](auto zero) {
    using T = decltype(zero);
    const auto& body = pick<NormBody<T>>();
    in_parallel(reduction_parts, x.size(), [&](Extent i) {
      const Range r = share({0, x.size()}, reduction_parts, i);
      parts[i] = body.all_finite(x.pointer<T>() + r.begin, r.size());
    });
  });
  for (const bool part : parts)
    if (!part) return false;
  return true;
}

}  // namespace dsx::kernels
