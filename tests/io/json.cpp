// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Strict parsing, getters with defaults, errors that name file, place and value; building and dumping.
#include "io_support.hpp"

#include <dsx/io/json.hpp>

#include <doctest/doctest.h>

#include <limits>

using namespace dsx;
using namespace dsx::test;

namespace {

Json parsed(std::string_view text) { return Json::parse(text, "x.json"); }
Refusal refused(std::string_view text) {
  return error_of([&] { parsed(text); });
}
std::string nested(int levels) { return std::string(std::size_t(levels), '[') + std::string(std::size_t(levels), ']'); }

}  // namespace

TEST_CASE("values are read as what they are") {
  const Json json = parsed(R"( {"z": -3, "a": [1.5, true, null, "t\u00e9\n\ud83d\ude42"], "big": 18446744073709551615, "e": {}} )");
  CHECK(json["z"].integer() == -3);
  CHECK(json["z"].number() == -3.0);
  CHECK(json["a"][0].number() == 1.5);
  CHECK(json["a"][1].boolean());
  CHECK(json["a"][2].is_null());
  CHECK(json["a"][3].text() == "té\n🙂");
  CHECK(json["big"].extent() == std::numeric_limits<Extent>::max());
  CHECK(json["e"].size() == 0);
  CHECK(json.contains("z"));
  CHECK(!json.contains("y"));
  CHECK(json["a"].items().size() == 4);
  std::string keys;
  for (const auto& [key, value] : json.members()) keys += key + ",";
  CHECK(keys == "z,a,big,e,");  // the file's order
}

TEST_CASE("a value outlives the document that it is part of") {
  Json inner = parsed(R"({"a": {"b": [7]}})")["a"]["b"];
  const Json copy = inner;
  inner = Json{};
  CHECK(copy[0].integer() == 7);
  CHECK(copy[0].where() == R"(x.json: "a"."b"[0])");
}

TEST_CASE("members have defaults where they are absent or null") {
  const Json json = parsed(R"({"n": 4, "r": 0.5, "t": "x", "b": true, "none": null})");
  CHECK(json.integer("n", 7) == 4);
  CHECK(json.integer("absent", -7) == -7);
  CHECK(json.extent("none", 7) == 7);
  CHECK(json.extent("n", 7) == 4);
  CHECK(json.number("r", 1) == 0.5);
  CHECK(json.number("n", 1) == 4.0);
  CHECK(json.text("t", "y") == "x");
  CHECK(json.text("none", "y") == "y");
  CHECK(json.boolean("b", false));
  CHECK(error_of([&] { (void)json.integer("t", 1); }) == 615);
}

TEST_CASE("a value of another kind is refused with its path and what it is") {
  const Json json = parsed(R"({"rope": {"theta": "ten"}, "n": -1, "half": 0.5, "list": [1, 2]})");
  const Refusal refusal = error_of([&] { (void)json["rope"]["theta"].number(); });
  CHECK(refusal == 615);
  CHECK(refusal.says(R"(x.json: "rope"."theta" is "ten", not a number)"));
  CHECK(error_of([&] { (void)json["n"].extent(); }).says(R"("n" is -1, not a whole number from 0 on)"));
  CHECK(error_of([&] { (void)json["half"].integer(); }) == 615);
  CHECK(error_of([&] { (void)json["half"].text(); }) == 615);
  CHECK(error_of([&] { (void)json["half"].boolean(); }) == 615);
  CHECK(error_of([&] { (void)json["list"]["a"]; }).says("is an array, not an object"));
  CHECK(error_of([&] { (void)json["n"][0]; }) == 615);
  CHECK(error_of([&] { (void)json["rope"].items(); }) == 615);
  CHECK(error_of([&] { (void)json["list"].members(); }) == 615);
  CHECK(error_of([&] { (void)parsed("18446744073709551615").integer(); }) == 615);
}

TEST_CASE("a member that isn't there is refused") {
  const Json json = parsed(R"({"list": [1, 2]})");
  CHECK(error_of([&] { (void)json["n_head"]; }).says("dsx-E616: x.json has no member \"n_head\""));
  CHECK(error_of([&] { (void)json["list"][2]; }).says("\"list\" has 2 elements, there is no [2]"));
  CHECK(error_of([&] { (void)json["list"][-1]; }) == 616);
}

TEST_CASE("texts that aren't JSON are refused with line and column") {
  const Refusal refusal = refused("{\n  \"a\": 1,\n  \"b\": tru\n}");
  CHECK(refusal == 611);
  CAPTURE(refusal.text);
  CHECK(refusal.says("x.json:3:"));
  CHECK(refusal.says("not JSON"));
  for (const std::string_view text : {"",    " ",       "{",           "[1,]",   "{\"a\":1,}", "{a:1}",   "[1] 2", "NaN", "-Infinity", "01", "1e999",
                                      "'a'", "// c\n1", "\"\\ud800\"", "\"\t\"", "\"a",        "{\"a\"}", "[1 2]", "nul", "+1",        ".5", "1."})
    CHECK_MESSAGE(refused(text) == 611, text);
  using namespace std::string_view_literals;
  CHECK(refused("{}\0{}"sv) == 611);
  CHECK(refused("\"\0\""sv) == 611);
}

TEST_CASE("bytes that aren't UTF-8 are refused with their place") {
  const Refusal refusal = refused("{\n\"a\": \"x\xC3(\"}");
  CHECK(refusal == 612);
  CHECK(refusal.says("x.json:2:8: not UTF-8: the byte 195 at offset 9"));
  for (const std::string_view bytes : {"\x80", "\xC0\x80", "\xC1\xBF", "\xC3", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xEF\xBF", "\xF0\x8F\xBF\xBF",
                                       "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xF0\x9F\x99"})
    CHECK(refused("\"" + std::string{bytes} + "\"") == 612);
  for (const std::string_view bytes : {"\xC2\x80", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"})
    CHECK(parsed("\"" + std::string{bytes} + "\"").text() == bytes);
  CHECK(error_of([] { Json{"\xFF"}; }) == 612);
  CHECK(error_of([] { Json::object({{"\xFF", 1}}); }) == 612);
}

TEST_CASE("a key that occurs twice in one object is refused") {
  const Refusal refusal = refused(R"({"a": 1, "b": {"n_head": 2, "x": 1, "n_head": 3}})");
  CHECK(refusal == 613);
  CHECK(refusal.says("\"n_head\""));
  CHECK(refused(R"({"a": 1, "\u0061": 2})") == 613);
  CHECK(refused(R"({"a": {"a": 1}})") == 0);
  CHECK(error_of([] { Json::object({{"a", 1}, {"a", 2}}); }) == 613);
}

TEST_CASE("64 levels are read and 65 are refused, as are ten million") {
  CHECK(parsed(nested(64)).dump() == nested(64));
  CHECK(refused(nested(65)) == 614);
  CHECK(refused(std::string(10'000'000, '[')) == 614);
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  CHECK(refused(objects) == 614);
  const auto build = [](int levels, auto wrap) {
    Json json = 1;
    for (int i = 0; i < levels; ++i) json = wrap(json);
  };
  const auto in_array = [](const Json& json) { return Json::array({json}); };
  const auto in_object = [](const Json& json) { return Json::object({{"a", json}}); };
  build(64, in_array), build(64, in_object);
  CHECK(error_of([&] { build(65, in_array); }) == 614);
  CHECK(error_of([&] { build(65, in_object); }) == 614);
}

TEST_CASE("what is built is dumped in order and read back the same") {
  const Json json = Json::object({{"step", 3},
                                  {"loss", 0.1},
                                  {"epsilon", 1e-05},
                                  {"zero", 0.0},
                                  {"files", Json::array({"a\"\n\x01", Json{}, true})},
                                  {"least", std::numeric_limits<std::int64_t>::min()},
                                  {"most", std::numeric_limits<std::uint64_t>::max()},
                                  {"none", nullptr},
                                  {"inner", Json::object({})}});
  const std::string line = R"({"step":3,"loss":0.1,"epsilon":1e-05,"zero":0.0,"files":["a\"\n\u0001",null,true],"least":-9223372036854775808,)"
                           R"("most":18446744073709551615,"none":null,"inner":{}})";
  CHECK(json.dump() == line);
  CHECK(parsed(line).dump() == line);
  CHECK(Json::object({{"a", Json::array({1})}}).dump(2) == "{\n  \"a\": [\n    1\n  ]\n}");
  CHECK(json["files"][0].where() == "\"files\"[0]");
  CHECK(error_of([] { Json{std::numeric_limits<double>::quiet_NaN()}; }) == 615);
  CHECK(error_of([] { Json{std::numeric_limits<double>::infinity()}; }) == 615);
}

TEST_CASE("a part of one document becomes part of another") {
  const Json source = parsed(R"({"a": {"b": [1, {"c": 2}]}})");
  const Json target = Json::object({{"copy", source["a"]["b"]}});
  CHECK(target.dump() == R"({"copy":[1,{"c":2}]})");
  CHECK(error_of([&] { (void)target["copy"][1]["c"].text(); }).says(R"("copy"[1]."c" is 2, not a text)"));
}

TEST_CASE("an object of many members is searched in little time") {
  std::string text = "{";
  for (int i = 0; i < 100'000; ++i) text += (i ? ",\"k" : "\"k") + std::to_string(i * 7919 % 100'000) + "\":" + std::to_string(i);
  const Json json = parsed(text + "}");
  std::int64_t sum = 0;
  for (int i = 0; i < 100'000; ++i) sum += json["k" + std::to_string(i)].integer();
  CHECK(sum == 99'999LL * 100'000 / 2);
}
