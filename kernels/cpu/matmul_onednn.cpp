// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// oneDNN's side of matrix products: primitives by shape and form, with scratch of the caller's.
#include "matmul_onednn.hpp"

#include "support.hpp"

#if DSX_HAS_ONEDNN
#include <dnnl.hpp>

#include <array>
#include <unordered_map>
#endif

namespace dsx::kernels {

#if DSX_HAS_ONEDNN
namespace {

/// Primitives that a thread keeps; beyond that the one that wasn't used for longest goes.
constexpr std::size_t most_primitives = 256;

struct Key {
  ProductShape shape;
  ProductForm form;
  Extent threads;  // a primitive is compiled for a number of threads
  bool operator==(const Key&) const = default;
};
struct Hash {
  std::size_t operator()(const Key& key) const {
    std::size_t h = 0;
    const auto mix = [&](std::size_t x) { h = (h ^ x) * 0x9E3779B97F4A7C15ULL; };
    mix(key.shape.m), mix(key.shape.n), mix(key.shape.k), mix(key.threads);
    mix(std::size_t(key.shape.operands) << 8 | std::size_t(key.shape.result) << 4 | std::size_t(key.shape.a_transposed) << 1 |
        std::size_t(key.shape.b_transposed));
    mix(std::size_t(key.form.accumulate) | (key.form.bias ? std::size_t(*key.form.bias) + 1 : 0) << 4 |
        (key.form.gelu ? std::size_t(*key.form.gelu) + 1 : 0) << 12);
    return h ^ h >> 29;
  }
};

const dnnl::engine& engine() {
  static const dnnl::engine processor{dnnl::engine::kind::cpu, 0};
  return processor;
}

dnnl::memory::data_type type_of(Element e) { return e == Element::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32; }
dnnl::memory::desc matrix(Extent rows, Extent columns, Element element, bool transposed) {
  using Tag = dnnl::memory::format_tag;
  return {{dnnl::memory::dim(rows), dnnl::memory::dim(columns)}, type_of(element), transposed ? Tag::ba : Tag::ab};
}

/// A product made ready; its memory objects are given this call's pointers, for to make new ones would allocate.
struct Ready {
  dnnl::matmul::primitive_desc description;
  dnnl::primitive primitive;  // compiled at its first use: a plan asks for the space alone
  dnnl::memory a, b, bias, c, space;
  Extent bytes = 0;
  std::uint64_t used = 0;

  explicit Ready(const Key& key) {
    const auto& [shape, form, count] = key;
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    dnnl::post_ops after;
    if (form.accumulate) after.append_sum(1);
    if (form.gelu) after.append_eltwise(1, *form.gelu == Gelu::tanh ? dnnl::algorithm::eltwise_gelu_tanh : dnnl::algorithm::eltwise_gelu_erf, 0, 0);
    attributes.set_post_ops(after);
    const auto left = matrix(shape.m, shape.k, shape.operands, shape.a_transposed),
               right = matrix(shape.k, shape.n, shape.operands, shape.b_transposed), out = matrix(shape.m, shape.n, shape.result, false),
               row = form.bias ? matrix(1, shape.n, *form.bias, false) : dnnl::memory::desc{};
    description = dnnl::matmul::primitive_desc{form.bias ? dnnl::matmul::desc{left, right, row, out} : dnnl::matmul::desc{left, right, out},
                                               attributes, engine(), true};
    if (!description.get(true)) return;
    const auto memory = [](const dnnl::memory::desc& d) { return dnnl::memory{d, engine(), nullptr}; };
    a = memory(left), b = memory(right), c = memory(out), space = memory(description.scratchpad_desc());
    if (form.bias) bias = memory(row);
    bytes = description.scratchpad_desc().get_size();
  }
};

/// This thread's primitives, and a stream to run them on.
struct Store {
  dnnl::stream stream{engine()};
  std::unordered_map<Key, Ready, Hash> ready;
  std::uint64_t clock = 0;

  Ready& find(const Key& key) {
    auto at = ready.find(key);
    if (at == ready.end()) {
      if (ready.size() == most_primitives)
        ready.erase(std::min_element(ready.begin(), ready.end(), [](const auto& x, const auto& y) { return x.second.used < y.second.used; }));
      at = ready.try_emplace(key, key).first;
    }
    at->second.used = ++clock;
    return at->second;
  }
};
Store& store() {
  thread_local Store mine;
  return mine;
}

constexpr Extent alignment = 64;

bool has_product(const ProductShape& s) {
  return s.m && s.n && s.k && s.operands != Element::f64 && (s.result == s.operands || s.result == Element::f32);
}

}  // namespace

Extent onednn_space(const ProductShape& shape) {
  if (!has_product(shape)) return 0;
  Extent most = 0;
  for (const bool accumulate : {false, true})
    for (const bool bias : {false, true})
      most = std::max(most, store().find({shape, {accumulate, bias ? std::optional{shape.result} : std::nullopt, {}}, threads()}).bytes);
  return most ? most + alignment : 0;
}

bool onednn_product(const ProductShape& shape, const ProductForm& form, const ProductData& data, View scratch) {
  if (!has_product(shape)) return false;
  Store& mine = store();
  Ready& r = mine.find({shape, form, threads()});
  if (!r.description.get(true)) return false;
  std::byte* space = scratch.pointer<std::byte>();
  if (r.bytes) {
    if (!space || scratch.bytes() < r.bytes + alignment) return false;
    space += (alignment - reinterpret_cast<std::uintptr_t>(space) % alignment) % alignment;
  }
  if (!r.primitive) r.primitive = dnnl::matmul{r.description};
  r.a.set_data_handle(data.a), r.b.set_data_handle(data.b), r.c.set_data_handle(data.c), r.space.set_data_handle(space);
  std::array<dnnl_exec_arg_t, 5> arguments{{{DNNL_ARG_SRC, r.a.get()},
                                            {DNNL_ARG_WEIGHTS, r.b.get()},
                                            {DNNL_ARG_DST, r.c.get()},
                                            {DNNL_ARG_SCRATCHPAD, r.space.get()},
                                            {DNNL_ARG_BIAS, nullptr}}};
  if (form.bias) r.bias.set_data_handle(data.bias), arguments[4].memory = r.bias.get();
  dnnl::error::wrap_c_api(dnnl_primitive_execute(r.primitive.get(), mine.stream.get(), form.bias ? 5 : 4, arguments.data()), "a matrix product");
  return true;
}

#else

Extent onednn_space(const ProductShape&) { return 0; }
bool onednn_product(const ProductShape&, const ProductForm&, const ProductData&, View) { return false; }

#endif

}  // namespace dsx::kernels
