// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Packing and unpacking on the host: runs of blocks over threads.
#include "block_codec_body.hpp"
#include "support.hpp"

namespace dsx::kernels {
namespace {

/// Elements of signs that make a turn of a loop; they stand under one scale.
constexpr Extent signs_a_run = 1024;

PackedForm form_of(const Codec& codec, Extent elements) {
  const Extent block = codec.block ? codec.block : signs_a_run, scales = codec.blocks(elements) * sizeof(float);
  return {.elements = elements,
          .block = block,
          .block_bytes = codec.code_bytes(block),
          .minima_at = scales,
          .codes_at = codec.head_bytes(elements),
          .bits = codec.bits,
          .minima = codec.codes == Codes::asymmetric};
}

void packs(std::string_view kernel, const Codec& codec, const View& values, const View& packed) {
  if (!codec.known())
    fail<341>("kernels::", kernel, " got a codec of ", codec.bits, " bits in blocks of ", codec.block,
              codec.codes == Codes::asymmetric ? ", asymmetric" : "",
              "; 8 and 4 bits are packed in blocks of at least 1, 1 bit in blocks of 0 (all), symmetric");
  on_host(kernel, {values, packed});
  if (packed.element != Element::u8 || packed.size() != codec.packed_bytes(values.size()))
    fail<340>("kernels::", kernel, " of ", values.size(), " elements as ", codec.name(), " takes ", codec.packed_bytes(values.size()),
              " bytes (u8), but got ", packed.size(), " elements of ", name_of(packed.element));
}

void feeds_back(std::string_view kernel, const View& values, const View& error) {
  on_host(kernel, {error});
  same_shape(kernel, values, error);
  if (error.element != wide(values.element))
    fail<405>("kernels::", kernel, " keeps errors of ", name_of(values.element), " values as ", name_of(wide(values.element)), ", not as ",
              name_of(error.element));
}

void pack(const Codec& codec, View values, View error, View packed) {
  const PackedForm form = form_of(codec, values.size());
  dispatch(values.element, [&](auto zero) {
    using T = decltype(zero);
    const auto& body = pick<CodecBody<T>>();
    in_ranges((form.elements + form.block - 1) / form.block, form.block, [&](Range blocks) {
      body.pack(form, values.pointer<T>(), error.pointer<Wide<T>>(), packed.pointer<std::uint8_t>(), blocks.begin, blocks.end);
    });
  });
}

void pack_signs(float scale, View values, View error, View packed) {
  if (!values.size()) return;
  std::memcpy(packed.data, &scale, sizeof scale);
  pack(one_bit, values, error, packed);
}

/// Parts of a sum: a number that doesn't depend on the threads, so the bits don't either.
constexpr Extent sum_parts = 64;

float scale_of_signs(View values, View error) {
  if (!values.size()) return 0;
  double parts[sum_parts];
  dispatch(values.element, [&](auto zero) {
    using T = decltype(zero);
    const auto& body = pick<CodecBody<T>>();
    in_parallel(sum_parts, values.size(), [&](Extent i) {
      const Range r = share({0, values.size()}, sum_parts, i);
      parts[i] = body.squares(values.pointer<T>() + r.begin, error.data ? error.pointer<Wide<T>>() + r.begin : nullptr, r.size());
    });
  });
  double sum = 0;
  for (const double part : parts) sum += part;
  const float scale = float(std::sqrt(sum / double(values.size())));
  return std::isfinite(scale) ? scale : std::numeric_limits<float>::quiet_NaN();
}

}  // namespace

void quantize(const Codec& codec, View values, View packed) {
  packs("quantize", codec, values, packed);
  if (codec.bits == 1)
    pack_signs(scale_of_signs(values, {}), values, {}, packed);
  else
    pack(codec, values, {}, packed);
}

void quantize_with_feedback(const Codec& codec, View values, View error, View packed) {
  packs("quantize_with_feedback", codec, values, packed);
  feeds_back("quantize_with_feedback", values, error);
  if (codec.bits == 1)
    pack_signs(scale_of_signs(values, error), values, error, packed);
  else
    pack(codec, values, error, packed);
}

float sign_scale(View values, View error) {
  on_host("sign_scale", {values});
  if (error.data) feeds_back("sign_scale", values, error);
  return scale_of_signs(values, error);
}

void quantize_signs(float scale, View values, View error, View packed) {
  packs("quantize_signs", one_bit, values, packed);
  if (error.data) feeds_back("quantize_signs", values, error);
  pack_signs(scale, values, error, packed);
}

void dequantize(const Codec& codec, View packed, Grad values) { dequantize_sum(codec, {&packed, 1}, values); }

void dequantize_sum(const Codec& codec, std::span<const View> packed, Grad values, double factor) {
  for (const View& one : packed) packs("dequantize", codec, values.view, one);
  const PackedForm form = form_of(codec, values.view.size());
  dispatch(values.view.element, [&](auto zero) {
    using T = decltype(zero);
    const auto& body = pick<CodecBody<T>>();
    in_ranges((form.elements + form.block - 1) / form.block, form.block, [&](Range blocks) {
      body.unpack(form, packed.data(), packed.size(), values.view.pointer<T>(), values.accumulate, Wide<T>(factor), blocks.begin, blocks.end);
    });
  });
}

}  // namespace dsx::kernels
