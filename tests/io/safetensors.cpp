// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Reading, converting, writing and refusing safetensors; files that Hugging Face wrote come out of our writer byte by byte.
#include "io_support.hpp"

#include <dsx/io/json.hpp>
#include <dsx/io/safetensors.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <csignal>
#include <cstring>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace dsx;
using namespace dsx::test;
namespace fs = std::filesystem;

namespace {

const fs::path golden = DSX_GOLDEN;

/// A file of this header and so many bytes of data: 0, 1, 2 ...
std::string file_text(std::string_view header, std::size_t data) {
  std::string text(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(text.data(), &length, 8);
  text += header;
  for (std::size_t i = 0; i < data; ++i) text += char(i);
  return text;
}

Refusal refused(const std::string& text) {
  return error_of([&] { SafetensorsFile(as_bytes(text), "x.safetensors"); });
}
Refusal refused(std::string_view header, std::size_t data) { return refused(file_text(header, data)); }

std::vector<TensorSpec> specs_of(const SafetensorsFile& file) {
  std::vector<TensorSpec> specs;
  for (const TensorEntry& entry : file.tensors()) specs.push_back({entry.name, entry.element.value(), entry.dims});
  return specs;
}

template <class T>
View view_of(std::vector<T>& values, Shape shape) {
  return {values.data(), shape, element_of<T>};
}

}  // namespace

TEST_CASE("files that Hugging Face wrote are written again byte by byte") {
  const TemporaryFolder folder;
  for (const char* name : {"gpt2_tiny/model.safetensors", "gpt2_tiny/expected.safetensors", "gpt2_tiny/training.safetensors", "io/dtypes.safetensors",
                           "llama_tiny/model-00001-of-00002.safetensors"}) {
    CAPTURE(name);
    const SafetensorsFile file{golden / name};
    std::vector<TensorSpec> specs = specs_of(file);
    std::reverse(specs.begin(), specs.end());  // the order given doesn't count
    SafetensorsWriter writer{folder / "copy", specs, file.metadata()};
    for (const TensorSpec& spec : writer.order()) writer.write(spec.name, file.bytes(spec.name));
    writer.commit();
    CHECK(read_file(folder / "copy") == read_file(golden / name));
  }
}

TEST_CASE("a file lists its tensors with elements, dims and metadata") {
  const SafetensorsFile file{golden / "gpt2_tiny/model.safetensors"};
  CHECK(file.metadata() == Metadata{{"format", "pt"}});
  CHECK(file.tensors().size() == 4 * 12 + 4);
  const TensorEntry& entry = file.entry("transformer.h.0.attn.c_attn.weight");
  CHECK(entry.dtype == "F32");
  CHECK(entry.element == Element::f32);
  CHECK(entry.dims == std::vector<Extent>{48, 144});
  CHECK(entry.bytes == Range{576, 28224});
  CHECK(entry.size() == 48 * 144);
  CHECK(file.bytes(entry.name).size() == 27648);
  CHECK(file.contains("transformer.wte.weight"));
  const Refusal refusal = error_of([&] { (void)file.entry("wte.weight"); });
  CHECK(refusal == 625);
  CHECK(refusal.says("model.safetensors has no tensor \"wte.weight\" among its 52"));
}

TEST_CASE("tensors are read whole, by rows, by elements and turned over") {
  const SafetensorsFile file{golden / "gpt2_tiny/model.safetensors"};
  const std::string name = "transformer.h.0.attn.c_attn.weight";  // [48, 144]
  std::vector<float> stored(48 * 144);
  std::memcpy(stored.data(), file.bytes(name).data(), stored.size() * sizeof(float));
  std::vector<float> whole(48 * 144), flat(48 * 144), rows(5 * 144), turned(144 * 48), turned_rows(144 * 5), piece(100);
  file.copy_to(name, view_of(whole, {48, 144}));
  file.copy_to(name, view_of(flat, {48 * 144, 1}));
  file.copy_to(name, view_of(rows, {5, 144}), {.rows = {7, 12}});
  file.copy_to(name, view_of(turned, {144, 48}), {.transposed = true});
  file.copy_to(name, view_of(turned_rows, {144, 5}), {.rows = {7, 12}, .transposed = true});
  file.copy_elements(name, {1000, 1100}, view_of(piece, {10, 10}));
  CHECK(whole == stored);
  CHECK(flat == stored);
  CHECK(std::equal(rows.begin(), rows.end(), stored.begin() + 7 * 144));
  CHECK(std::equal(piece.begin(), piece.end(), stored.begin() + 1000));
  int wrong = 0;
  for (std::size_t i = 0; i < 48; ++i)
    for (std::size_t j = 0; j < 144; ++j) wrong += turned[j * 48 + i] != stored[i * 144 + j];
  for (std::size_t i = 0; i < 5; ++i)
    for (std::size_t j = 0; j < 144; ++j) wrong += turned_rows[j * 5 + i] != stored[(7 + i) * 144 + j];
  CHECK(wrong == 0);
}

TEST_CASE("a view that a tensor doesn't fill is refused") {
  const SafetensorsFile file{golden / "gpt2_tiny/model.safetensors"};
  const std::string name = "transformer.h.0.attn.c_attn.weight";  // [48, 144]
  std::vector<float> buffer(48 * 144 + 1);
  const auto refusal = [&](Shape shape, TensorPart part = {}) { return error_of([&] { file.copy_to(name, view_of(buffer, shape), part); }); };
  CHECK(refusal({48, 144}) == 0);
  CHECK(refusal({1, 48 * 144}) == 0);
  CHECK(refusal({144, 48}).says("of shape [48,144] doesn't fill a view of 144 x 48"));
  CHECK(refusal({48, 145}) == 626);
  CHECK(refusal({96, 72}) == 626);
  CHECK(refusal({48, 144}, {.transposed = true}) == 626);
  CHECK(refusal({48, 144}, {.rows = {0, 47}}) == 626);
  CHECK(refusal({1, 144}, {.rows = {48, 49}}) == 626);
  CHECK(refusal({1, 144}, {.rows = {3, 2}}) == 626);
  CHECK(error_of([&] { file.copy_elements(name, {0, 10}, view_of(buffer, {11, 1})); }) == 626);
  CHECK(error_of([&] { file.copy_elements(name, {48 * 144 - 5, 48 * 144 + 5}, view_of(buffer, {10, 1})); }) == 626);
  std::vector<std::int64_t> integers(48 * 144);
  CHECK(error_of([&] { file.copy_to(name, view_of(integers, {48, 144})); }).says("of F32 can't become i64"));
  View elsewhere = view_of(buffer, {48, 144});
  elsewhere.place = Place::cuda;
  CHECK(error_of([&] { file.copy_to(name, elsewhere); }) == 626);
  CHECK(error_of([&] { file.copy_to(name, View{nullptr, {48, 144}}); }) == 0);  // of a dry run
  CHECK(error_of([&] { file.copy_to(name, View{nullptr, {48, 143}}); }) == 626);
}

TEST_CASE("real elements convert into each other, others are copied") {
  const TemporaryFolder folder;
  std::vector<double> exact{1.0, -0.5, 3.0, 65504.0, 0x1p-24, 0.0};
  std::vector<std::int64_t> ids{1, -1, 199};
  {
    SafetensorsWriter writer{
        folder / "a", {{"f64", Element::f64, {2, 3}}, {"f32", Element::f32, {2, 3}}, {"bf16", Element::bf16, {2, 3}}, {"ids", Element::i64, {3}}}};
    for (const TensorSpec& spec : writer.order()) {
      if (spec.name == "ids")
        writer.write("ids", view_of(ids, {3, 1}));
      else
        writer.write(spec.name, view_of(exact, {2, 3}));
    }
    writer.commit();
  }
  const SafetensorsFile file{folder / "a"};
  CHECK(file.entry("bf16").bytes.size() == 12);
  for (const char* name : {"f64", "f32", "bf16"}) {
    std::vector<double> f64(6);
    std::vector<float> f32(6);
    std::vector<bf16> low(6);
    file.copy_to(name, view_of(f64, {2, 3}));
    file.copy_to(name, view_of(f32, {2, 3}));
    file.copy_to(name, view_of(low, {2, 3}));
    for (std::size_t i = 0; i < 6; ++i) {
      const double expected = name[0] == 'b' ? double(bf16{exact[i]}) : exact[i];
      CHECK(f64[i] == expected);
      CHECK(f32[i] == float(expected));
      CHECK(low[i].bits == bf16{exact[i]}.bits);
    }
  }
  std::vector<std::int64_t> back(3);
  file.copy_to("ids", view_of(back, {1, 3}));
  CHECK(back == ids);
}

TEST_CASE("every f16 number is read") {
  std::string header = R"({"h":{"dtype":"F16","shape":[65536],"data_offsets":[0,131072]}})", text = file_text(header, 0);
  for (unsigned bits = 0; bits < 65536; ++bits) text += char(bits & 255), text += char(bits >> 8);
  const SafetensorsFile file{as_bytes(text), "halves"};
  std::vector<float> values(65536);
  file.copy_to("h", view_of(values, {65536, 1}));
  int wrong = 0;
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const unsigned exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const float sign = bits >> 15 ? -1.0F : 1.0F, value = values[bits];
    if (exponent == 31)
      wrong += mantissa ? !std::isnan(value) : value != sign * INFINITY;
    else
      wrong += value != sign * (exponent ? float(1024 + mantissa) * std::exp2(float(exponent) - 25) : float(mantissa) * 0x1p-24F);
  }
  CHECK(wrong == 0);
  CHECK(std::signbit(values[0x8000]));
}

TEST_CASE("data that don't lie aligned are read") {
  const std::string text =
      file_text(R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}} )", 9);
  for (std::size_t shift = 0; shift < 4; ++shift) {
    const std::string moved = std::string(shift, 'x') + text;
    const SafetensorsFile file{as_bytes(moved).subspan(shift), "odd"};
    std::vector<double> values(2);
    file.copy_to("f", view_of(values, {1, 2}));
    CHECK(values[1] == double(std::bit_cast<float>(0x08070605U)));
  }
}

TEST_CASE("dtypes that dsx doesn't hold are listed and given as bytes") {
  const std::string text =
      file_text(R"({"c":{"dtype":"F8_E4M3","shape":[2,3],"data_offsets":[0,6]},"p":{"dtype":"F4","shape":[4],"data_offsets":[6,8]}})", 8);
  const SafetensorsFile file{as_bytes(text), "x.safetensors"};
  CHECK(!file.entry("c").element);
  CHECK(file.bytes("c").size() == 6);
  CHECK(file.bytes("p").size() == 2);
  std::vector<float> values(6);
  const Refusal refusal = error_of([&] { file.copy_to("c", view_of(values, {2, 3})); });
  CHECK(refusal == 624);
  CHECK(refusal.says("F8_E4M3"));
  CHECK(refused(R"({"a":{"dtype":"Q4_0","shape":[2],"data_offsets":[0,2]}})", 2)
            .says("dsx-E624: x.safetensors: tensor \"a\" has the unknown dtype \"Q4_0\""));
}

TEST_CASE("files that end too early are refused") {
  const TemporaryFolder folder;
  CHECK(error_of([&] { SafetensorsFile{folder / "absent"}; }) == 601);
  CHECK(error_of([&] { SafetensorsFile{folder.path()}; }) == 601);
  write_file(folder / "empty", "");
  const Refusal empty = error_of([&] { SafetensorsFile{folder / "empty"}; });
  CHECK(empty == 620);
  CHECK(empty.says("is 0 bytes long"));
  CHECK(refused(std::string(7, '\0')) == 620);
  const auto of_length = [](std::uint64_t length) {
    std::string text(8, '\0');
    std::memcpy(text.data(), &length, 8);
    return refused(text + "{}");
  };
  CHECK(of_length(std::uint64_t{1} << 60).says("header is 1152921504606846976 bytes long"));
  CHECK(of_length(~std::uint64_t{0}) == 620);
  CHECK(of_length(~std::uint64_t{0} - 7) == 620);
  CHECK(of_length(3).says("header is 3 bytes long, but has 2 bytes"));
  CHECK(of_length(2) == 0);
  CHECK(of_length(1) == 611);
  const std::string whole = read_file(golden / "io/dtypes.safetensors");
  for (std::size_t length = 0; length < whole.size(); ++length)
    CHECK(error_of([&] { SafetensorsFile(as_bytes(whole).first(length), "cut"); }) == 620);
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 7).says("[0, 8), but the file has only 7 bytes of data"));
  CHECK(refused(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[18446744073709551608,18446744073709551615]}})", 8) == 620);
}

TEST_CASE("headers that aren't JSON or don't describe tensors are refused") {
  CHECK(refused("", 0) == 611);
  CHECK(refused("not JSON", 0) == 611);
  CHECK(refused("\xFF\xFE", 0) == 612);
  CHECK(refused("[]", 0) == 621);
  CHECK(refused("7", 0) == 621);
  CHECK(refused(" {}", 0) == 621);
  CHECK(refused("{}\n  ", 0) == 0);
  CHECK(refused(R"({"a":1})", 0) == 615);
  CHECK(refused(R"({"a":{"shape":[2],"data_offsets":[0,8]}})", 8) == 616);
  CHECK(refused(R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", 8) == 616);
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[2]}})", 8) == 616);
  CHECK(refused(R"({"a":{"dtype":7,"shape":[2],"data_offsets":[0,8]}})", 8) == 615);
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8).says(R"(x.safetensors: "a"."shape"[0] is -2)"));
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8) == 615);
  CHECK(refused(R"({"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})", 8) == 615);
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", 8) == 621);
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4,8]}})", 8) == 621);
  CHECK(refused(R"({"__metadata__":{"format":1}})", 0) == 615);
  CHECK(refused(R"({"__metadata__":[]})", 0) == 615);
  const Refusal twice = refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8);
  CHECK(twice == 613);
  CHECK(twice.says("\"a\""));
}

TEST_CASE("tensors that overlap or leave holes are refused") {
  const auto two = [](const char* first, const char* second) {
    return refused(std::string{R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)"} + first + R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" +
                       second + "}}",
                   8);
  };
  CHECK(two("[0,4]", "[4,8]") == 0);
  CHECK(two("[4,8]", "[0,4]") == 0);
  CHECK(two("[0,4]", "[2,6]").says("tensor \"b\" has the bytes [2, 6), but the one before it ends at 4: they overlap"));
  CHECK(two("[0,4]", "[0,4]") == 622);
  CHECK(two("[4,8]", "[4,8]").says(": a hole"));
  CHECK(two("[1,5]", "[4,8]") == 622);
  CHECK(two("[0,4]", "[8,4]").says("ends before it begins"));
  CHECK(refused(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 8).says("the last tensor ends at byte 4, the data at 8: a hole"));
  CHECK(refused("{}", 1) == 622);
  CHECK(refused(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"e":{"dtype":"U8","shape":[0],"data_offsets":[1,1]})"
                R"(,"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                3) == 622);
}

TEST_CASE("a shape that its bytes don't hold is refused") {
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8).says("[3] of F32 takes 12 bytes, its offsets [0, 8) hold 8"));
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,8]}})", 8) == 623);
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,8]}})", 8) == 623);
  // 2^32 x 2^32 x 4 bytes, and 2^62 x 4: both are 0 modulo 2^64.
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0) == 623);
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0) == 623);
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[18446744073709551615,18446744073709551615],"data_offsets":[0,4]}})", 4) == 623);
  CHECK(refused(R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", 2) == 623);
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]}})", 0) == 0);
  const TemporaryFolder folder;
  CHECK(error_of([&] { SafetensorsWriter(folder / "a", {{"a", Element::f32, {Extent{1} << 62}}}); }) == 623);
}

TEST_CASE("tensors have to be written once, in order and in full") {
  const TemporaryFolder folder;
  const std::vector<TensorSpec> specs{{"b", Element::f32, {2}}, {"a", Element::f32, {3}}, {"e", Element::f32, {0}}, {"z", Element::f64, {1}}};
  const std::string zeros(64, '\0');
  const auto bytes = [&](std::size_t n) { return as_bytes(zeros).first(n); };
  {
    SafetensorsWriter writer{folder / "a", specs};
    CHECK(error_of([&] { writer.write("b", bytes(8)); }).says("tensor \"b\" was written where byte 0 of \"z\" comes next"));
    writer.write("z", bytes(8));
    writer.write("a", bytes(4));
    CHECK(error_of([&] { writer.write("b", bytes(8)); }).says("byte 4 of \"a\" comes next"));
    CHECK(error_of([&] { writer.write("a", bytes(9)); }).says("9 bytes were written at byte 4 of tensor \"a\", which has 12"));
    writer.write("a", bytes(8));
    CHECK(error_of([&] { writer.commit(); }).says("of tensor \"b\" 0 of 8 bytes were written"));
    writer.write("b", bytes(8));
    writer.write("e", bytes(0));
    CHECK(error_of([&] { writer.write("a", bytes(4)); }) == 627);
    CHECK(error_of([&] { writer.write("new", bytes(4)); }) == 627);
    writer.commit();
  }
  CHECK(SafetensorsFile{folder / "a"}.tensors().size() == 4);
  CHECK(error_of([&] { SafetensorsWriter(folder / "b", {{"x", Element::f32, {1}}, {"x", Element::f64, {1}}}); }) == 627);
  CHECK(error_of([&] { SafetensorsWriter(folder / "b", {{"__metadata__", Element::f32, {1}}}); }) == 627);
  {
    SafetensorsWriter unfinished{folder / "a", {{"x", Element::f32, {1}}}};
  }
  CHECK(SafetensorsFile{folder / "a"}.contains("z"));
}

TEST_CASE("views are written converted, turned over and in pieces") {
  const TemporaryFolder folder;
  std::vector<float> values(300 * 1000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = float(i) / 7;
  const View whole = view_of(values, {300, 1000});
  SafetensorsWriter writer{folder / "a",
                           {{"wide", Element::f64, {300, 1000}},
                            {"plain", Element::f32, {300, 1000}},
                            {"turned", Element::f32, {1000, 300}},
                            {"low", Element::bf16, {300, 1000}}}};
  writer.write("wide", whole);
  writer.write("plain", whole.rows({0, 100}));
  writer.write("plain", whole.rows({100, 300}));
  CHECK(error_of([&] { writer.write("turned", whole.rows({0, 100}), true); }) == 626);
  writer.write("turned", whole, true);
  writer.write("low", whole);
  CHECK(error_of([&] { writer.write("low", View{nullptr, {1, 1}}); }) == 626);
  CHECK(error_of([&] { writer.write("none", whole); }) == 627);
  std::vector<std::int64_t> integers(1);
  CHECK(error_of([&] { writer.write("low", view_of(integers, {1, 1})); }) == 626);
  writer.commit();
  const SafetensorsFile file{folder / "a"};
  std::vector<float> wide(values.size()), plain(values.size()), turned(values.size());
  std::vector<bf16> low(values.size());
  file.copy_to("wide", view_of(wide, {300, 1000}));
  file.copy_to("plain", view_of(plain, {300, 1000}));
  file.copy_to("turned", view_of(turned, {300, 1000}), {.transposed = true});
  file.copy_to("low", view_of(low, {300, 1000}));
  CHECK(wide == values);
  CHECK(plain == values);
  CHECK(turned == values);
  CHECK(std::equal(low.begin(), low.end(), values.begin(), [](bf16 a, float b) { return a.bits == bf16{b}.bits; }));
}

TEST_CASE("a full disk while weights are written leaves the old weights") {
  const TemporaryFolder folder;
  fs::copy_file(golden / "gpt2_tiny/model.safetensors", folder / "model.safetensors");
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{300'000, 300'000};
    int status = ::setrlimit(RLIMIT_FSIZE, &limit);
    const Refusal refusal = error_of([&] {
      const SafetensorsFile file{folder / "model.safetensors"};
      SafetensorsWriter writer{folder / "model.safetensors", specs_of(file)};
      for (const TensorSpec& spec : writer.order()) writer.write(spec.name, file.bytes(spec.name));
      writer.commit();
    });
    if (refusal.number != 602 || !refusal.says("at offset 300000")) status = 1;
    ::_exit(status);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
  CHECK(read_file(folder / "model.safetensors") == read_file(golden / "gpt2_tiny/model.safetensors"));
  CHECK(std::distance(fs::directory_iterator{folder.path()}, fs::directory_iterator{}) == 1);
}

TEST_CASE("a set of shards reads like one file, and is cut as Hugging Face cuts it") {
  const SafetensorsSet set{golden / "llama_tiny"};
  CHECK(set.files().size() == 2);
  CHECK(set.names().size() == 3 * 9 + 3);
  CHECK(set.contains("lm_head.weight"));
  CHECK(error_of([&] { (void)set.bytes("absent"); }) == 625);
  std::vector<float> head(199 * 48), part(199 * 48);
  set.copy_to("lm_head.weight", view_of(head, {199, 48}));
  CHECK(std::memcmp(head.data(), set.bytes("lm_head.weight").data(), head.size() * 4) == 0);
  set.copy_elements("model.norm.weight", {1, 3}, view_of(part, {2, 1}));
  const SafetensorsSet copied = [&] { return SafetensorsSet{set}; }();
  CHECK(copied.entry("model.norm.weight").dims == std::vector<Extent>{48});

  // In the order of the model that was saved, with the limit that it was saved with.
  std::vector<std::string> names{"model.embed_tokens.weight"};
  for (int i = 0; i < 3; ++i)
    for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
                             "mlp.down_proj", "input_layernorm", "post_attention_layernorm"})
      names.push_back("model.layers." + std::to_string(i) + "." + name + ".weight");
  names.push_back("model.norm.weight"), names.push_back("lm_head.weight");
  std::vector<TensorSpec> specs;
  for (const std::string& name : names) specs.push_back({name, Element::f32, set.entry(name).dims});
  const TemporaryFolder folder;
  SafetensorsSetWriter writer{folder.path(), specs, {.largest = 180'000}};
  for (const TensorSpec& spec : writer.order()) writer.write(spec.name, set.bytes(spec.name));
  writer.commit();
  for (const char* file : {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"})
    CHECK_MESSAGE(read_file(folder / file) == read_file(golden / "llama_tiny" / file), file);
}

TEST_CASE("a set is one file if it fits, and replaces what would be read in its place") {
  const TemporaryFolder folder;
  const std::vector<TensorSpec> specs{{"a", Element::f32, {4}}, {"b", Element::f32, {100}}, {"c", Element::f32, {4}}, {"d", Element::f32, {4}}};
  const auto write = [&](float value, Extent largest) {
    std::vector<float> values(100, value);
    SafetensorsSetWriter writer{folder.path(), specs, {.largest = largest}};
    for (const TensorSpec& spec : writer.order()) writer.write(spec.name, view_of(values, {spec.dims[0], 1}));
    CHECK(error_of([&] { writer.write("e", view_of(values, {1, 1})); }) == 627);
    writer.commit();
  };
  const auto read = [&] {
    const SafetensorsSet set{folder.path()};
    std::vector<float> values(1);
    set.copy_elements("b", {99, 100}, view_of(values, {1, 1}));
    return std::pair{set.files().size(), values[0]};
  };
  CHECK(error_of([&] { SafetensorsSet{folder.path()}; }) == 601);
  write(1, 1'000'000);
  CHECK(read() == std::pair<std::size_t, float>{1, 1.0F});
  write(2, 32);  // b is too large for any shard and has its own; a and c share one
  CHECK(read() == std::pair<std::size_t, float>{3, 2.0F});
  CHECK(!fs::exists(folder / "model.safetensors"));
  write(3, 1'000'000);
  CHECK(read() == std::pair<std::size_t, float>{1, 3.0F});
  CHECK(!fs::exists(folder / "model.safetensors.index.json"));
  CHECK(SafetensorsSet{folder / "model.safetensors"}.names() == std::vector<std::string>{"a", "b", "c", "d"});
  CHECK(error_of([&] { SafetensorsSetWriter(folder.path(), {{"a", Element::f32, {4}}, {"a", Element::f32, {4}}}, {.largest = 16}); }) == 627);
}

TEST_CASE("shards that don't fit their index are refused") {
  const TemporaryFolder folder;
  const auto shard = [&](const char* file, const char* tensor) {
    SafetensorsWriter writer{folder / file, {{tensor, Element::u8, {1}}}};
    const std::string byte = "x";
    writer.write(tensor, as_bytes(byte)), writer.commit();
  };
  const auto index = [&](const std::string& map) {
    write_file(folder / "model.safetensors.index.json", "{\"weight_map\": " + map + "}");
    return error_of([&] { SafetensorsSet{folder.path()}; });
  };
  shard("1.safetensors", "a"), shard("2.safetensors", "b"), shard("3.safetensors", "a");
  CHECK(index(R"({"a": "1.safetensors", "b": "2.safetensors"})") == 0);
  CHECK(index(R"({"a": "1.safetensors", "b": "4.safetensors"})").says("names the shard \"4.safetensors\", which is missing"));
  CHECK(index(R"({"a": "1.safetensors", "b": "1.safetensors"})").says("tensor \"b\" is in 1.safetensors, but it isn't"));
  CHECK(index(R"({"a": "2.safetensors", "b": "1.safetensors"})") == 628);
  CHECK(index(R"({"a": "1.safetensors", "b": "2.safetensors", "c": "3.safetensors"})").says("tensor \"a\" is both in"));
  for (const char* outside : {"../1.safetensors", "/etc/passwd", "..", "sub/1.safetensors", "", "."})
    CHECK_MESSAGE(index("{\"a\": \"" + std::string{outside} + "\"}") == 628, outside);
  CHECK(index("{\"a\": 1}") == 615);
  CHECK(index("[]") == 615);
  write_file(folder / "model.safetensors.index.json", "{}");
  CHECK(error_of([&] { SafetensorsSet{folder.path()}; }) == 616);
}
