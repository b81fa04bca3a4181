// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// JSON values that do not change: strict parsing, getters whose errors name file and member, building and dumping.
///
///     Json config = Json::parse(read_file("config.json"), "config.json");
///     Extent heads = config["n_head"].extent();            // dsx-E615: config.json: "n_head" is "three", not a whole number
///     double rate = config.number("resid_pdrop", 0.1);     // absent or null: 0.1
///     std::string text = Json::object({{"step", 3}, {"files", Json::array({"a", "b"})}}).dump(2);
///
/// Refused: what is not UTF-8, a key that occurs twice, more than 64 levels, NaN and infinities, anything after the value.
#pragma once

#include <dsx/core/shape.hpp>

#include <concepts>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace dsx {

class Json {
 public:
  enum class Kind { null, boolean, integer, number, text, array, object };
  struct Member;
  static constexpr Extent deepest = 64;

  /// `name` stands for the text in error messages: a path, say.
  static Json parse(std::string_view text, std::string_view name);

  Json();  ///< null
  Json(std::nullptr_t) : Json{} {}
  Json(std::same_as<bool> auto value) : Json{Kind::boolean, false, value} {}
  template <std::integral T>
    requires(!std::same_as<T, bool>)
  Json(T value) : Json{Kind::integer, value < 0, std::uint64_t(value)} {}
  Json(double value);  ///< dsx-E615 unless finite
  Json(std::string_view text);
  Json(const std::string& text) : Json{std::string_view{text}} {}
  Json(const char* text) : Json{std::string_view{text}} {}
  static Json array(const std::vector<Json>& items);
  /// In this order; dsx-E613 if a key occurs twice.
  static Json object(const std::vector<Member>& members);

  Kind kind() const;
  bool is_null() const { return kind() == Kind::null; }

  // The value as this kind, else dsx-E615.
  bool boolean() const;
  std::int64_t integer() const;
  /// A whole number that isn't negative.
  Extent extent() const;
  /// Whole numbers too.
  double number() const;
  const std::string& text() const;

  /// Elements of an array, members of an object; 0 else.
  Extent size() const;
  /// dsx-E616 if there is none.
  Json operator[](std::integral auto index) const { return element(Extent(index)); }
  Json operator[](std::string_view key) const;
  Json operator[](const char* key) const { return (*this)[std::string_view{key}]; }
  bool contains(std::string_view key) const;

  // A member of an object, or `otherwise` where it is absent or null.
  bool boolean(std::string_view key, bool otherwise) const;
  std::int64_t integer(std::string_view key, std::int64_t otherwise) const;
  Extent extent(std::string_view key, Extent otherwise) const;
  double number(std::string_view key, double otherwise) const;
  std::string text(std::string_view key, std::string_view otherwise) const;

  /// Of an array, in order.
  std::vector<Json> items() const;
  /// Of an object, in the file's order.
  std::vector<Member> members() const;

  /// `indent` < 0: one line without spaces.
  std::string dump(int indent = -1) const;
  /// Where the value stands: `config.json: "rope"."theta"`.
  std::string where() const;

 private:
  struct Node;
  struct Builder;
  Json(Kind kind, bool negative, std::uint64_t bits);
  explicit Json(std::shared_ptr<const Node> node) : node_{std::move(node)} {}

  Json element(Extent index) const;
  const Node* find(std::string_view key) const;
  Json inside(const Node& node) const { return Json{std::shared_ptr<const Node>{node_, &node}}; }

  /// Points into a tree that it keeps alive as a whole.
  std::shared_ptr<const Node> node_;
};

struct Json::Member {
  std::string key;
  Json value;
};

}  // namespace dsx
