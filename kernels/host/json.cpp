// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The tree behind io/json.hpp. nlohmann-json reads tokens (without recursion) and writes text; checks and errors are here.
///
///     Json::parse(R"({"a": [1, 2]})", "x.json")["a"][5]
///     // dsx-E616: x.json: "a" has 2 elements, there is no [5]
#include <dsx/core/error.hpp>
#include <dsx/io/json.hpp>

#include <nlohmann/json.hpp>

#include <cmath>
#include <numeric>
#include <utility>

namespace dsx {

struct Json::Node {
  Kind kind = Kind::null;
  bool negative = false;   // of an integer; then `bits` is its two's complement
  std::uint64_t bits = 0;  // boolean, integer
  double real = 0;
  std::string text;
  std::string key;  // in an object; of a parsed root, the name
  std::vector<Node> children;
  std::vector<std::uint32_t> by_key;  // children of an object, sorted
  const Node* parent = nullptr;

  std::string_view key_of(std::uint32_t child) const { return children[child].key; }

  /// Sorts the keys; the first key that occurs twice, or none.
  const std::string* index_keys() {
    by_key.resize(children.size());
    std::iota(by_key.begin(), by_key.end(), 0U);
    std::sort(by_key.begin(), by_key.end(), [&](auto a, auto b) { return key_of(a) < key_of(b); });
    const auto twice = std::adjacent_find(by_key.begin(), by_key.end(), [&](auto a, auto b) { return key_of(a) == key_of(b); });
    return twice == by_key.end() ? nullptr : &children[*twice].key;
  }

  /// Once the tree has its final addresses.
  void adopt() {
    for (Node& child : children) child.parent = this, child.adopt();
  }

  Extent depth() const {
    Extent deepest_child = 0;
    for (const Node& child : children) deepest_child = std::max(deepest_child, child.depth());
    return kind == Kind::array || kind == Kind::object ? deepest_child + 1 : 0;
  }
};

namespace {

constexpr std::string_view kind_name(Json::Kind kind) {
  constexpr std::string_view names[] = {"null", "true or false", "a whole number", "a number", "a text", "an array", "an object"};
  return names[std::size_t(kind)];
}

/// "3:14", counted from 1; a column is a byte.
std::string line_and_column(std::string_view text, Extent offset) {
  Extent line = 1, column = 1;
  for (const char c : text.substr(0, offset)) c == '\n' ? (++line, column = 1) : ++column;
  return concat(line, ':', column);
}

/// The offset of the first byte that no UTF-8 text has there, or the text's size.
Extent first_invalid_utf8(std::string_view text) {
  const auto byte = [&](Extent i) { return i < text.size() ? std::uint8_t(text[i]) : std::uint8_t{0}; };
  for (Extent i = 0; i < text.size();) {
    const std::uint8_t lead = byte(i);
    const int more = lead < 0x80 ? 0 : lead < 0xC2 ? -1 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : lead < 0xF5 ? 3 : -1;
    if (more < 0) return i;
    // The second byte is narrower where longer forms, surrogates and values above 10FFFF begin.
    const std::uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80, high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (more > 0 && (byte(i + 1) < low || byte(i + 1) > high)) return i;
    for (int k = 2; k <= more; ++k)
      if ((byte(i + Extent(k)) & 0xC0) != 0x80) return i;
    i += Extent(more) + 1;
  }
  return text.size();
}

std::string shortened(std::string_view text) {
  constexpr Extent longest = 60;
  return concat(text.substr(0, longest), text.size() > longest ? "..." : "");
}

std::string in_quotes(std::string_view text) { return concat('"', shortened(text), '"'); }

}  // namespace

/// Takes nlohmann's events; holds the open arrays and objects.
struct Json::Builder {
  std::string_view source, name;
  Node root;
  std::vector<Node> open;  // by value: a child moves into its parent when it ends
  std::string next_key;

  bool put(Node node) {
    if (open.empty())
      root = std::move(node);
    else
      open.back().children.push_back(std::move(node));
    return true;
  }
  Node make(Kind kind) {
    Node node;
    node.kind = kind;
    node.key = std::exchange(next_key, {});
    return node;
  }
  bool begin(Kind kind) {
    if (open.size() >= deepest) fail<614>(name, ": JSON nested deeper than ", deepest, " levels");
    open.push_back(make(kind));
    return true;
  }
  bool end() {
    Node node = std::move(open.back());
    open.pop_back();
    node.children.shrink_to_fit();
    if (const std::string* twice = node.kind == Kind::object ? node.index_keys() : nullptr)
      fail<613>(name, ": the key ", in_quotes(*twice), " occurs twice in one object");
    return put(std::move(node));
  }

  bool null() { return put(make(Kind::null)); }
  bool boolean(bool value) {
    Node node = make(Kind::boolean);
    node.bits = value;
    return put(std::move(node));
  }
  bool whole(bool negative, std::uint64_t bits) {
    Node node = make(Kind::integer);
    node.negative = negative, node.bits = bits;
    return put(std::move(node));
  }
  bool number_integer(std::int64_t value) { return whole(value < 0, std::uint64_t(value)); }
  bool number_unsigned(std::uint64_t value) { return whole(false, value); }
  bool number_float(double value, const std::string&) {
    Node node = make(Kind::number);
    node.real = value;
    return put(std::move(node));
  }
  bool string(std::string& value) {
    Node node = make(Kind::text);
    node.text = std::move(value);
    return put(std::move(node));
  }
  bool binary(std::vector<std::uint8_t>&) { return false; }  // not in a text
  bool start_object(std::size_t) { return begin(Kind::object); }
  bool start_array(std::size_t) { return begin(Kind::array); }
  bool end_object() { return end(); }
  bool end_array() { return end(); }
  bool key(std::string& value) {
    next_key = std::move(value);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) const {
    // "[json.exception...] parse error at line 1, column 2: syntax error ...": the place is given in our own way.
    std::string_view why = error.what();
    for (const std::string_view before : {"] ", "parse error at line", ": "}) {
      const auto at = why.find(before);
      if (at == why.npos) break;  // "number overflow parsing '1e999'" has no place
      why.remove_prefix(at + before.size());
    }
    fail<611>(name, ':', line_and_column(source, position == 0 ? 0 : position - 1), ": not JSON: ", why);
  }
};

Json Json::parse(std::string_view text, std::string_view name) {
  if (const Extent bad = first_invalid_utf8(text); bad < text.size())
    fail<612>(name, ':', line_and_column(text, bad), ": not UTF-8: the byte ", int(std::uint8_t(text[bad])), " at offset ", bad,
              " can't stand there");
  if (const auto nul = text.find('\0'); nul != text.npos) fail<611>(name, ':', line_and_column(text, nul), ": not JSON: a byte of value 0");
  Builder builder{text, name, {}, {}, {}};
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);  // whatever it refuses, parse_error() throws
  auto root = std::make_shared<Node>(std::move(builder.root));
  root->key = name;
  root->adopt();
  return Json{std::shared_ptr<const Node>{std::move(root)}};
}

Json::Json() {
  static const auto null = std::make_shared<const Node>();
  node_ = null;
}

Json::Json(Kind kind, bool negative, std::uint64_t bits) {
  auto node = std::make_shared<Node>();
  node->kind = kind, node->negative = negative, node->bits = bits;
  node_ = std::move(node);
}

Json::Json(double value) {
  if (!std::isfinite(value)) fail<615>(value, " can't be written as JSON");
  auto node = std::make_shared<Node>();
  node->kind = Kind::number, node->real = value;
  node_ = std::move(node);
}

Json::Json(std::string_view text) {
  if (const Extent bad = first_invalid_utf8(text); bad < text.size())
    fail<612>("a text that JSON should hold isn't UTF-8: byte ", int(std::uint8_t(text[bad])), " at offset ", bad);
  auto node = std::make_shared<Node>();
  node->kind = Kind::text, node->text = text;
  node_ = std::move(node);
}

Json Json::array(const std::vector<Json>& items) {
  auto node = std::make_shared<Node>();
  node->kind = Kind::array;
  for (const Json& item : items) node->children.push_back(*item.node_), node->children.back().key.clear();
  if (node->depth() > deepest) fail<614>("an array built deeper than ", deepest, " levels");
  node->adopt();
  return Json{std::shared_ptr<const Node>{std::move(node)}};
}

Json Json::object(const std::vector<Member>& members) {
  auto node = std::make_shared<Node>();
  node->kind = Kind::object;
  for (const auto& [key, value] : members) {
    if (first_invalid_utf8(key) < key.size()) fail<612>("a key that JSON should hold isn't UTF-8: ", in_quotes(key));
    node->children.push_back(*value.node_), node->children.back().key = key;
  }
  if (const std::string* twice = node->index_keys()) fail<613>("the key ", in_quotes(*twice), " occurs twice in one object");
  if (node->depth() > deepest) fail<614>("an object built deeper than ", deepest, " levels");
  node->adopt();
  return Json{std::shared_ptr<const Node>{std::move(node)}};
}

Json::Kind Json::kind() const { return node_->kind; }

std::string Json::where() const {
  std::string path;
  const Node* node = node_.get();
  for (; node->parent; node = node->parent) {
    const bool in_array = node->parent->kind == Kind::array;
    const std::string step =
        in_array ? concat('[', Extent(node - node->parent->children.data()), ']') : concat(node->parent->parent ? "." : "", in_quotes(node->key));
    path = step + path;
  }
  const std::string& name = node->key;
  return name.empty() ? (path.empty() ? "the value" : path) : path.empty() ? name : concat(name, ": ", path);
}

namespace {

[[noreturn]] void wrong_kind(const Json& json, std::string_view wanted) {
  const bool shown = json.kind() < Json::Kind::array;
  fail<615>(json.where(), " is ", shown ? shortened(json.dump()) : std::string{kind_name(json.kind())}, ", not ", wanted);
}

}  // namespace

bool Json::boolean() const {
  if (kind() != Kind::boolean) wrong_kind(*this, kind_name(Kind::boolean));
  return node_->bits != 0;
}

std::int64_t Json::integer() const {
  if (kind() != Kind::integer) wrong_kind(*this, kind_name(Kind::integer));
  if (!node_->negative && node_->bits >> 63 != 0) wrong_kind(*this, "a whole number of 64 bits with sign");
  return std::int64_t(node_->bits);
}

Extent Json::extent() const {
  if (kind() != Kind::integer || node_->negative) wrong_kind(*this, "a whole number from 0 on");
  return node_->bits;
}

double Json::number() const {
  if (kind() == Kind::number) return node_->real;
  if (kind() != Kind::integer) wrong_kind(*this, kind_name(Kind::number));
  return node_->negative ? double(std::int64_t(node_->bits)) : double(node_->bits);
}

const std::string& Json::text() const {
  if (kind() != Kind::text) wrong_kind(*this, kind_name(Kind::text));
  return node_->text;
}

Extent Json::size() const { return node_->children.size(); }

Json Json::element(Extent index) const {
  if (kind() != Kind::array) wrong_kind(*this, kind_name(Kind::array));
  if (index >= size()) fail<616>(where(), " has ", size(), " elements, there is no [", index, ']');
  return inside(node_->children[index]);
}

const Json::Node* Json::find(std::string_view key) const {
  if (kind() != Kind::object) wrong_kind(*this, kind_name(Kind::object));
  const auto& order = node_->by_key;
  const auto at = std::lower_bound(order.begin(), order.end(), key, [&](std::uint32_t a, std::string_view k) { return node_->key_of(a) < k; });
  return at != order.end() && node_->key_of(*at) == key ? &node_->children[*at] : nullptr;
}

Json Json::operator[](std::string_view key) const {
  const Node* member = find(key);
  if (!member) fail<616>(where(), " has no member ", in_quotes(key));
  return inside(*member);
}

bool Json::contains(std::string_view key) const { return find(key) != nullptr; }

bool Json::boolean(std::string_view key, bool otherwise) const {
  const Node* member = find(key);
  return member && member->kind != Kind::null ? inside(*member).boolean() : otherwise;
}

std::int64_t Json::integer(std::string_view key, std::int64_t otherwise) const {
  const Node* member = find(key);
  return member && member->kind != Kind::null ? inside(*member).integer() : otherwise;
}

Extent Json::extent(std::string_view key, Extent otherwise) const {
  const Node* member = find(key);
  return member && member->kind != Kind::null ? inside(*member).extent() : otherwise;
}

double Json::number(std::string_view key, double otherwise) const {
  const Node* member = find(key);
  return member && member->kind != Kind::null ? inside(*member).number() : otherwise;
}

std::string Json::text(std::string_view key, std::string_view otherwise) const {
  const Node* member = find(key);
  return member && member->kind != Kind::null ? inside(*member).text() : std::string{otherwise};
}

std::vector<Json> Json::items() const {
  if (kind() != Kind::array) wrong_kind(*this, kind_name(Kind::array));
  std::vector<Json> items;
  items.reserve(size());
  for (const Node& child : node_->children) items.push_back(inside(child));
  return items;
}

std::vector<Json::Member> Json::members() const {
  if (kind() != Kind::object) wrong_kind(*this, kind_name(Kind::object));
  std::vector<Member> members;
  members.reserve(size());
  for (const Node& child : node_->children) members.push_back({child.key, inside(child)});
  return members;
}

std::string Json::dump(int indent) const {
  using Written = nlohmann::ordered_json;
  const auto written = [](const auto& self, const Node& node) -> Written {
    switch (node.kind) {
      case Kind::null:
        return nullptr;
      case Kind::boolean:
        return node.bits != 0;
      case Kind::integer:
        return node.negative ? Written(std::int64_t(node.bits)) : Written(node.bits);
      case Kind::number:
        return node.real;
      case Kind::text:
        return node.text;
      case Kind::array:
      case Kind::object:
        break;
    }
    Written whole = node.kind == Kind::array ? Written::array() : Written::object();
    for (const Node& child : node.children) {
      if (node.kind == Kind::array)
        whole.push_back(self(self, child));
      else  // not operator[]: it looks for the key first, one by one
        whole.template get_ref<Written::object_t&>().Written::object_t::Container::emplace_back(child.key, self(self, child));
    }
    return whole;
  };
  return written(written, *node_).dump(indent);
}

}  // namespace dsx
