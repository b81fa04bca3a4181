// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
// labels: gold
#include "support/golden.hpp"

#include <dsx/kernels/block_codec.hpp>

#include <doctest/doctest.h>

#include <numeric>

using namespace dsx;
using namespace dsx::test;

namespace {

using Bytes = std::vector<std::uint8_t>;
View bytes_view(Bytes& b) { return {b.data(), {b.size(), 1}, Element::u8, Place::cpu, nullptr}; }
template <class T>
View view_of(const std::vector<T>& x) {
  return {const_cast<T*>(x.data()), {x.size(), 1}, element_of<T>, Place::cpu, nullptr};
}

std::vector<float> floats(const SafetensorsFile& file, const std::string& name) {
  const std::vector<double> all = numbers(file, name);
  return {all.begin(), all.end()};
}
Bytes bytes_of(const SafetensorsFile& file, const std::string& name) {
  const auto stored = file.bytes(name);
  Bytes all(stored.size());
  std::memcpy(all.data(), stored.data(), all.size());
  return all;
}
std::vector<float> floats_at(const Bytes& packed, Extent begin, Extent count) {
  std::vector<float> all(count);
  std::memcpy(all.data(), packed.data() + begin, count * sizeof(float));
  return all;
}

/// The compressed all-reduce (Tang et al. 2021, arXiv 2102.02888) of one vector, all ranks in one loop: each rank packs its whole vector
/// under one scale, rank r averages part r of all and packs the mean again.
struct CompressedSum {
  Extent n, ranks, size, each;  // size: with padding; each: of a rank's part
  std::vector<std::vector<double>> worker_error, server_error;
  std::vector<std::vector<Bytes>> sent;  // [rank][part]
  std::vector<Bytes> answered;           // [part]

  CompressedSum(Extent n, Extent ranks, bool padded) : n{n}, ranks{ranks} {
    size = padded ? round_up(n, ranks * std::lcm(ranks, Extent(8))) : n;
    each = (size + ranks - 1) / ranks;
    worker_error.assign(ranks, std::vector<double>(size));
    for (Extent r = 0; r < ranks; ++r) server_error.emplace_back(part(r).size());
  }
  Range part(Extent r) const { return {std::min(size, r * each), std::min(size, (r + 1) * each)}; }

  std::vector<double> operator()(std::span<const double> inputs) {
    sent.assign(ranks, {}), answered.clear();
    for (Extent rank = 0; rank < ranks; ++rank) {
      std::vector<double> x(inputs.begin() + std::ptrdiff_t(rank * n), inputs.begin() + std::ptrdiff_t((rank + 1) * n));
      x.resize(size);
      const float scale = kernels::sign_scale(view_of(x), view_of(worker_error[rank]));
      for (Extent p = 0; p < ranks; ++p) {
        sent[rank].emplace_back(one_bit.packed_bytes(part(p).size()));
        kernels::quantize_signs(scale, view_of(x).part(part(p)), view_of(worker_error[rank]).part(part(p)), bytes_view(sent[rank].back()));
      }
    }
    std::vector<double> result(size);
    for (Extent p = 0; p < ranks; ++p) {
      std::vector<View> operands;
      for (Extent rank = 0; rank < ranks; ++rank) operands.push_back(bytes_view(sent[rank][p]));
      std::vector<double> mean(part(p).size());
      kernels::dequantize_sum(one_bit, operands, {view_of(mean), false}, 1.0 / double(ranks));
      answered.emplace_back(one_bit.packed_bytes(mean.size()));
      kernels::quantize_with_feedback(one_bit, view_of(mean), view_of(server_error[p]), bytes_view(answered.back()));
      kernels::dequantize(one_bit, bytes_view(answered.back()), {view_of(result).part(part(p)), false});
    }
    result.resize(n);
    return result;
  }
};

/// The golden's signs of some elements, packed.
Bytes packed_signs(std::span<const std::uint8_t> signs) {
  Bytes packed((signs.size() + 7) / 8);
  for (Extent i = 0; i < signs.size(); ++i) packed[i / 8] = std::uint8_t(packed[i / 8] | (signs[i] << (7 - i % 8)));
  return packed;
}
Bytes codes(const Bytes& packed) { return {packed.begin() + std::ptrdiff_t(std::min(packed.size(), sizeof(float))), packed.end()}; }

}  // namespace

TEST_CASE("int8 and int4 codes, scales and values are the golden ones") {
  const SafetensorsFile inputs{golden("quant/gguf_blocks.safetensors")}, file{golden("quant/nf4_and_integers.safetensors")};
  const std::pair<const char*, Codec> codecs[] = {{"int8.symmetric", block_int8<64>},
                                                  {"int8.asymmetric", block_int8<64, Codes::asymmetric>},
                                                  {"int4.symmetric", block_int4<64>},
                                                  {"int4.asymmetric", block_int4<64, Codes::asymmetric>}};
  for (const auto& [form, codec] : codecs)
    for (const std::string label : {"plain", "outliers"}) {
      const std::string name = std::string{form} + "." + label;
      CAPTURE(name);
      const std::vector<float> x = floats(inputs, "input." + label);
      const Extent n = x.size(), blocks = codec.blocks(n);
      Bytes packed(codec.packed_bytes(n));
      kernels::quantize(codec, view_of(x), bytes_view(packed));
      CHECK(floats_at(packed, 0, blocks) == floats(file, name + ".scale"));
      if (codec.codes == Codes::asymmetric) CHECK(floats_at(packed, blocks * sizeof(float), blocks) == floats(file, name + ".minimum"));
      Bytes expected = bytes_of(file, name + ".codes");
      if (codec.bits == 4) {
        for (Extent i = 0; i < n / 2; ++i) expected[i] = std::uint8_t((expected[2 * i] << 4) | (expected[2 * i + 1] & 15));
        expected.resize(n / 2);
      }
      CHECK(Bytes(packed.begin() + std::ptrdiff_t(codec.head_bytes(n)), packed.end()) == expected);
      std::vector<float> back(n);
      kernels::dequantize(codec, bytes_view(packed), {view_of(back), false});
      // The golden rounds scale x code before the minimum is added.
      CHECK(relative(back, floats(file, name + ".dequantized")) < (codec.codes == Codes::asymmetric ? 1e-7 : 1e-30));
    }
}

TEST_CASE("a compressed all-reduce over ranks gives the golden sums, errors, scales and bytes") {
  const SafetensorsFile file{golden("optim/compressed_allreduce.safetensors")};
  for (const Extent n : {13, 64})
    for (const Extent ranks : {2, 4})
      for (const bool padded : {false, true}) {
        const std::string shape = concat("n", n, ".ranks", ranks), name = shape + (padded ? ".padding_deepspeed." : ".padding_none.");
        CompressedSum reduce{n, ranks, padded};
        const std::vector<double> inputs = numbers(file, shape + ".inputs");
        for (Extent round = 0; round < 3; ++round) {
          CAPTURE(concat(name, " round ", round));
          const auto now = [&](const auto& all) { return part_of(all, 3, round); };
          const auto stored = [&](const char* what) {
            const std::vector<double> all = numbers(file, name + what);
            const auto some = now(all);
            return std::vector<double>{some.begin(), some.end()};
          };
          const std::vector<double> result = reduce(now(inputs));
          std::vector<double> worker, server, worker_scales, server_scales;
          for (const auto& one : reduce.worker_error) worker.insert(worker.end(), one.begin(), one.end());
          for (const auto& one : reduce.server_error) server.insert(server.end(), one.begin(), one.end());
          // Scales travel as floats.
          const double float_rounding = 1e-6;
          CHECK(relative(result, stored("output")) < float_rounding);
          CHECK(relative(worker, stored("worker_error")) < float_rounding);
          CHECK(relative(server, stored("server_error")) < float_rounding);
          const Bytes worker_signs = bytes_of(file, name + "worker_signs"), server_signs = bytes_of(file, name + "server_signs");
          for (Extent rank = 0; rank < ranks; ++rank) {
            worker_scales.push_back(double(floats_at(reduce.sent[rank][0], 0, 1)[0]));
            server_scales.push_back(reduce.answered[rank].empty() ? 0 : double(floats_at(reduce.answered[rank], 0, 1)[0]));
            const auto signs = part_of(worker_signs, 3 * ranks, round * ranks + rank);
            Bytes sent;
            for (Extent p = 0; p < ranks; ++p) {
              const Range r = reduce.part(p);
              const Bytes part = codes(reduce.sent[rank][p]);
              CHECK(part == packed_signs(signs.subspan(r.begin, r.size())));
              sent.insert(sent.end(), part.begin(), part.end());
            }
            const Range r = reduce.part(rank);
            CHECK(codes(reduce.answered[rank]) == packed_signs(now(server_signs).subspan(r.begin, r.size())));
            if (padded) {
              const Bytes all_sent = bytes_of(file, name + "worker_signs_packed"), all_answered = bytes_of(file, name + "server_signs_packed");
              const auto expected = part_of(all_sent, 3 * ranks, round * ranks + rank);
              CHECK(sent == Bytes(expected.begin(), expected.end()));
              const auto answer = part_of(all_answered, 3 * ranks, round * ranks + rank);
              CHECK(codes(reduce.answered[rank]) == Bytes(answer.begin(), answer.end()));
            }
          }
          CHECK(relative(worker_scales, stored("worker_scales")) < float_rounding);
          CHECK(relative(server_scales, stored("server_scales")) < float_rounding);
        }
      }
}
