// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Matrix products on the host: the choice between oneDNN and Eigen. For Eigen C is cut into one block of tiles a thread, each with packing
/// space of its own.
#include "matmul_body.hpp"
#include "matmul_onednn.hpp"
#include "support.hpp"

#include <dsx/kernels/matmul.hpp>

#include <array>
#include <memory>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace dsx::kernels {
namespace {

#if DSX_HAS_ONEDNN
constexpr std::array libraries{MatmulLibrary::eigen, MatmulLibrary::onednn};
#else
constexpr std::array libraries{MatmulLibrary::eigen};
#endif

thread_local bool fixed_products = false;

/// Whether the processor multiplies tiles of bf16 (AMX).
bool has_amx() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1U);
#else
  return false;
#endif
}

/// The library that the environment asks for, if it does.
std::optional<MatmulLibrary> asked_for() {
  const char* const wish = std::getenv("DSX_MATMUL");
  if (!wish || !*wish) return {};
  std::string names;
  for (const MatmulLibrary library : libraries) {
    if (name_of(library) == wish) return library;
    names += concat(names.empty() ? "" : ", ", name_of(library));
  }
  fail<810>("DSX_MATMUL is ", wish, ", but this build multiplies matrices by: ", names);
}

/// Into how many rows and columns of blocks C is cut.
struct Cut {
  Extent down = 1, across = 1;
};

/// The cut for so many threads whose largest block is smallest; among those the one whose blocks have least to pack.
Cut cut(Extent m, Extent n, Extent k, Extent tile_rows, Extent tile_columns, Extent threads_) {
  Cut best;
  if (m * n * k < 8 * worth_threads) return best;
  const Extent rows = (m + tile_rows - 1) / tile_rows, columns = (n + tile_columns - 1) / tile_columns;
  Extent least_work = rows * columns, least_packed = m + n;
  for (Extent down = 1; down <= threads_; ++down)
    for (Extent across = threads_ / down; across >= 1 && across * down > threads_ / 2; --across) {
      const Extent tall = (rows + down - 1) / down, wide = (columns + across - 1) / across;
      const Extent packed = tall * tile_rows + wide * tile_columns;
      if (tall * wide < least_work || (tall * wide == least_work && packed < least_packed))
        best = {down, across}, least_work = tall * wide, least_packed = packed;
    }
  return best;
}

/// Steps between the elements of an operand's rows and columns.
struct Steps {
  Extent row, column;
};
Steps steps(const Matrix& m) { return m.transposed ? Steps{1, m.view.shape.columns} : Steps{m.view.shape.columns, 1}; }

template <class T, class U>
struct Plan {
  Cut blocks;
  Extent rows, columns;  // of the largest block
  Extent space;          // bytes for each
  Extent bytes() const { return blocks.down * blocks.across * space + 64; }
};

template <class T, class U>
Plan<T, U> plan(Extent m, Extent n, Extent k, Extent threads_) {
  const auto& body = pick<MatmulBody<T, U>>();
  const Cut blocks = cut(m, n, k, body.tile_rows, body.tile_columns, threads_);
  const auto largest = [](Extent whole, Extent tile, Extent parts) {
    const Extent tiles = (whole + tile - 1) / tile;
    return std::min(whole, (tiles + parts - 1) / parts * tile);
  };
  const Extent rows = largest(m, body.tile_rows, blocks.down), columns = largest(n, body.tile_columns, blocks.across);
  return {blocks, rows, columns, round_up(body.space(rows, columns, k), 64)};
}

/// f(T{}, U{}) for the element types that operands and result may hold.
template <class F>
decltype(auto) dispatch_product(Element operands, Element result, F&& f) {
  if (operands == Element::bf16 && result == Element::f32) return f(bf16{}, float{});
  return dispatch(operands, [&](auto zero) {
    if (result != operands)
      fail<405>("kernels::matmul multiplies ", name_of(operands), " into ", name_of(operands), " or ", name_of(wide(operands)), ", not into ",
                name_of(result));
    return f(zero, zero);
  });
}

/// A product of m x k by k x n whose operands and result begin somewhere in larger buffers.
struct Product {
  const void* a;
  Steps a_steps;
  const void* b;
  Steps b_steps;
  void* c;
  Extent c_row, m, n, k;
  bool accumulate;
};

/// The block of a product that so many rows and columns are, with its epilogue.
template <class T, class U>
MatmulTask<T, U> task(const Product& p, const Epilogue& epilogue, Range rows, Range columns, std::byte* space) {
  const View& bias = epilogue.bias_N;
  return {.a = static_cast<const T*>(p.a) + rows.begin * p.a_steps.row,
          .a_row = p.a_steps.row,
          .a_column = p.a_steps.column,
          .b = static_cast<const T*>(p.b) + columns.begin * p.b_steps.column,
          .b_row = p.b_steps.row,
          .b_column = p.b_steps.column,
          .c = static_cast<U*>(p.c) + rows.begin * p.c_row + columns.begin,
          .c_row = p.c_row,
          .m = rows.size(),
          .n = columns.size(),
          .k = p.k,
          .accumulate = p.accumulate,
          .single = p.m == 1,
          .bias = bias.data ? bias.pointer<std::byte>() + columns.begin * bytes_of(bias.element) : nullptr,
          .wide_bias = bias.element == element_of<U>,
          .activated = epilogue.activated_MN.data ? epilogue.activated_MN.pointer<U>() + rows.begin * p.c_row + columns.begin : nullptr,
          .form = epilogue.form,
          .space = space};
}
std::byte* aligned_begin(const View& scratch) {
  std::byte* const space = scratch.pointer<std::byte>();
  return space + (64 - reinterpret_cast<std::uintptr_t>(space) % 64) % 64;
}

template <class T, class U>
void run(const Product& p, const Epilogue& epilogue, View scratch) {
  if (p.m == 0 || p.n == 0) return;
  const auto& body = pick<MatmulBody<T, U>>();
  Plan<T, U> planned = plan<T, U>(p.m, p.n, p.k, threads());
  // Scratch that was planned for a larger product or fewer threads may be too small for all threads: the bits are the same on fewer.
  for (Extent fewer = threads(); scratch.bytes() < planned.bytes(); planned = plan<T, U>(p.m, p.n, p.k, fewer))
    if (--fewer == 0)
      fail<401>("kernels::matmul needs ", planned.bytes(), " bytes of scratch for ", p.m, " x ", p.k, " times ", p.k, " x ", p.n, ", not ",
                scratch.bytes());
  std::byte* const space = aligned_begin(scratch);
  in_parallel(planned.blocks.down * planned.blocks.across, p.m * p.n * p.k, [&](Extent i) {
    const auto part = [](Extent whole, Extent tile, Extent parts, Extent index) {
      const Range tiles = share({0, (whole + tile - 1) / tile}, parts, index);
      return Range{std::min(whole, tiles.begin * tile), std::min(whole, tiles.end * tile)};
    };
    const Range rows = part(p.m, body.tile_rows, planned.blocks.down, i / planned.blocks.across);
    const Range columns = part(p.n, body.tile_columns, planned.blocks.across, i % planned.blocks.across);
    if (rows.size() > 0 && columns.size() > 0) body.product(task<T, U>(p, epilogue, rows, columns, space + i * planned.space));
  });
}

/// What a group costs a thread beside its rows, in rows: its matrix comes from memory or goes there.
constexpr Extent rows_of_a_matrix = 48;
/// Fewer rows a thread are better shared group by group, each cut over all threads.
constexpr Extent least_rows = 64;

/// Products of groups of rows, none larger than m x n x k; of(g) is group g's, with its epilogue. All of them together are cut into equal
/// parts, a few a thread, and whoever is free takes the next: nobody waits for others between groups, and a matrix is packed by one thread, or
/// two. False, with nothing done, where that doesn't pay or the space is short.
template <class T, class U, class Of>
bool run_groups(std::span<const Extent> begin, Extent m, Extent n, Extent k, View scratch, const Of& of) {
  const auto& body = pick<MatmulBody<T, U>>();
  const Extent groups = begin.size() - 1, team = threads(), space = round_up(body.space(m, n, k), 64);
  if (team == 1 || begin.back() < team * least_rows || m * n * k < 8 * worth_threads || scratch.bytes() < team * space + 64) return false;
  std::byte* const first = aligned_begin(scratch);
  const Extent parts = std::min(4 * team, begin.back() / least_rows);
  in_parallel(parts, m * n * k, [&](Extent part) {
    const Range mine = share({0, begin.back() + groups * rows_of_a_matrix}, parts, part);
    for (Extent g = 0; g < groups; ++g) {
      const Range cost{begin[g] + g * rows_of_a_matrix, begin[g + 1] + (g + 1) * rows_of_a_matrix};
      if (overlap(cost, mine).size() == 0) continue;
      const auto [product, epilogue] = of(g);
      // A product is cut where tiles end, so that a row's sums are made in one way wherever it is computed.
      const auto row = [&, all = product.m](Extent at) {
        if (at >= cost.end) return all;
        return at <= cost.begin ? 0 : std::min(all, round_up((at - cost.begin) * all / cost.size(), body.tile_rows));
      };
      const Range rows{row(mine.begin), row(mine.end)};
      if (rows.size() > 0) body.product(task<T, U>(product, epilogue, rows, {0, n}, first + this_thread() * space));
    }
  });
  return true;
}
/// The same, or one after the other.
template <class T, class U, class Of>
void run_each(std::span<const Extent> begin, Extent m, Extent n, Extent k, View scratch, const Of& of) {
  if (run_groups<T, U>(begin, m, n, k, scratch, of)) return;
  for (Extent g = 0; g + 1 < begin.size(); ++g) {
    const auto [product, epilogue] = of(g);
    run<T, U>(product, epilogue, scratch);
  }
}

/// The caller's scratch, or as much as a product needs if the caller gave none.
class Space {
 public:
  Space(const Matrix& a, const Matrix& b, const View& c, View given) : view_{given} {
    if (given.data) return;
    const Extent bytes = matmul_scratch(a, b, c);
    own_.reset(new std::byte[bytes]);
    view_ = {own_.get(), {bytes, 1}, Element::u8, Place::cpu, nullptr};
  }
  View view() const { return view_; }

 private:
  View view_;
  std::unique_ptr<std::byte[]> own_;
};

/// A whole product as oneDNN knows it.
ProductShape shape_of(const Matrix& a, const Matrix& b, const View& c) {
  return {c.shape.rows, c.shape.columns, a.shape().columns, a.view.element, c.element, a.transposed, b.transposed};
}

/// Whether oneDNN was chosen and has computed the product. GELU joins it where C itself becomes activated, else it is a second pass.
bool by_onednn(const Matrix& a, const Matrix& b, Grad c, const Epilogue& epilogue, View scratch) {
  if (matmul_library(a.view.element) != MatmulLibrary::onednn) return false;
  const View &bias = epilogue.bias_N, &activated = epilogue.activated_MN;
  ProductForm form{.accumulate = c.accumulate, .bias = {}, .gelu = {}};
  if (bias.data) form.bias = bias.element;
  if (activated.data == c.view.data) form.gelu = epilogue.form;
  if (!onednn_product(shape_of(a, b, c.view), form, {a.view.data, b.view.data, bias.data, c.view.data}, scratch)) return false;
  if (activated.data && !form.gelu) gelu(c.view, activated, epilogue.form);
  return true;
}

void by_eigen(const Matrix& a, const Matrix& b, Grad c, const Epilogue& epilogue, View scratch) {
  const Shape out = c.view.shape;
  dispatch_product(a.view.element, c.view.element, [&](auto zero, auto result_zero) {
    run<decltype(zero), decltype(result_zero)>(
        {a.view.data, steps(a), b.view.data, steps(b), c.view.data, out.columns, out.rows, out.columns, a.shape().columns, c.accumulate}, epilogue,
        scratch);
  });
}

void check_groups(std::string_view kernel, std::span<const Extent> begin, Extent rows) {
  bool rising = !begin.empty() && begin.front() == 0 && begin.back() == rows;
  for (Extent g = 0; g + 1 < begin.size(); ++g) rising = rising && begin[g] <= begin[g + 1];
  if (!rising) fail<301>("kernels::", kernel, ": the groups' first rows must rise from 0 to ", rows);
}

}  // namespace

std::span<const MatmulLibrary> matmul_libraries() { return libraries; }

FixedProducts::FixedProducts(bool fixed) : before_{fixed_products} { fixed_products = before_ || fixed; }
FixedProducts::~FixedProducts() { fixed_products = before_; }

MatmulLibrary matmul_library(Element operands) {
  static const std::optional<MatmulLibrary> asked = asked_for();
  if (operands == Element::f64 || fixed_products) return MatmulLibrary::eigen;
  if (asked) return *asked;
  static const bool tiles = has_amx();
  return operands == Element::bf16 && tiles ? libraries.back() : MatmulLibrary::eigen;
}

void matmul(const Matrix& a, const Matrix& b, Grad c, const Epilogue& epilogue, View scratch) {
  on_host("matmul", {a.view, b.view, c.view, epilogue.bias_N, epilogue.activated_MN});
  const Shape left = a.shape(), right = b.shape(), out = c.view.shape;
  if (left.columns != right.rows || out.rows != left.rows || out.columns != right.columns)
    fail<301>("kernels::matmul can't write ", left.rows, " x ", left.columns, " times ", right.rows, " x ", right.columns, " to ", out.rows, " x ",
              out.columns);
  same_element("matmul", a.view, b.view);
  const View &bias = epilogue.bias_N, &activated = epilogue.activated_MN;
  if (bias.data && bias.size() != out.columns) fail<301>("kernels::matmul got a bias of ", bias.size(), " for rows of ", out.columns);
  if (bias.data && bias.element != a.view.element && bias.element != c.view.element)
    fail<405>("kernels::matmul can't add a bias of ", name_of(bias.element), " to ", name_of(c.view.element));
  if (activated.data) same_shape("matmul", c.view, activated), same_element("matmul", c.view, activated);
  const Space space{a, b, c.view, scratch};
  if (!by_onednn(a, b, c, epilogue, space.view())) by_eigen(a, b, c, epilogue, space.view());
}

Extent matmul_scratch(const Matrix& a, const Matrix& b, const View& c) {
  // What oneDNN doesn't have, Eigen multiplies: there is space for both.
  const Extent m = a.shape().rows, n = b.shape().columns, k = a.shape().columns;
  if (m == 0 || n == 0) return 0;
  const Extent packing = dispatch_product(a.view.element, c.element, [&](auto zero, auto result_zero) {
    return plan<decltype(zero), decltype(result_zero)>(m, n, k, threads()).bytes();
  });
  return matmul_library(a.view.element) == MatmulLibrary::onednn ? std::max(packing, onednn_space(shape_of(a, b, c))) : packing;
}

void grouped_matmul(const Matrix& a, View b_GKN, bool b_transposed, std::span<const Extent> begin, Grad c, View scratch, const Epilogue& epilogue) {
  const Extent groups = begin.empty() ? 0 : begin.size() - 1;
  const Shape left = a.shape(), out = c.view.shape;
  check_groups("grouped_matmul", begin, left.rows);
  const Extent stacked = b_transposed ? out.columns : left.columns;  // rows of one matrix as it lies in the stack
  if (out.rows != left.rows || b_GKN.shape.rows != groups * stacked || b_GKN.shape.columns != (b_transposed ? left.columns : out.columns))
    fail<301>("kernels::grouped_matmul can't write ", left.rows, " x ", left.columns, " times ", groups, " of ", b_GKN.shape.rows, " x ",
              b_GKN.shape.columns, " to ", out.rows, " x ", out.columns);
  same_element("grouped_matmul", a.view, b_GKN);
  const View &bias = epilogue.bias_N, &activated = epilogue.activated_MN;
  if (bias.data && bias.size() != groups * out.columns)
    fail<301>("kernels::grouped_matmul got a bias of ", bias.size(), " for ", groups, " groups of rows of ", out.columns);
  if (bias.data && bias.element != a.view.element && bias.element != c.view.element)
    fail<405>("kernels::grouped_matmul can't add a bias of ", name_of(bias.element), " to ", name_of(c.view.element));
  if (activated.data) same_shape("grouped_matmul", c.view, activated), same_element("grouped_matmul", c.view, activated);
  if (left.rows == 0) return;
  const Space space{a, {b_GKN.rows({0, stacked}), b_transposed}, c.view, scratch};
  dispatch_product(a.view.element, c.view.element, [&](auto zero, auto result_zero) {
    using T = decltype(zero);
    using U = decltype(result_zero);
    const Steps a_steps = steps(a), b_steps = steps({b_GKN, b_transposed});
    const auto of = [&](Extent g) {
      const Range rows{begin[g], begin[g + 1]};
      Epilogue own = epilogue;
      if (bias.data) own.bias_N = bias.reshaped({groups, out.columns}).rows({g, g + 1});
      if (activated.data) own.activated_MN = activated.rows(rows);
      // Rows of A may be columns of its view.
      return std::pair{Product{a.view.pointer<T>() + rows.begin * a_steps.row, a_steps, b_GKN.rows({g * stacked, (g + 1) * stacked}).data, b_steps,
                               c.view.rows(rows).data, out.columns, rows.size(), out.columns, left.columns, c.accumulate},
                       own};
    };
    run_each<T, U>(begin, out.rows, out.columns, left.columns, space.view(), of);
  });
}

void grouped_matmul_weights(View a_MK, View dc_MN, std::span<const Extent> begin, Grad db_GKN, View scratch) {
  const Extent groups = begin.empty() ? 0 : begin.size() - 1, k = a_MK.shape.columns;
  check_groups("grouped_matmul_weights", begin, a_MK.shape.rows);
  if (dc_MN.shape.rows != a_MK.shape.rows || db_GKN.view.shape.rows != groups * k || db_GKN.view.shape.columns != dc_MN.shape.columns)
    fail<301>("kernels::grouped_matmul_weights can't write ", a_MK.shape.rows, " x ", k, " transposed times ", dc_MN.shape.rows, " x ",
              dc_MN.shape.columns, " by ", groups, " groups to ", db_GKN.view.shape.rows, " x ", db_GKN.view.shape.columns);
  same_element("grouped_matmul_weights", a_MK, dc_MN);
  if (groups == 0) return;
  const Space space{{a_MK, true}, {dc_MN}, db_GKN.view.rows({0, k}), scratch};
  dispatch_product(a_MK.element, db_GKN.view.element, [&](auto zero, auto result_zero) {
    const Steps a_steps = steps({a_MK, true}), dc_steps = steps({dc_MN});
    const Extent n = dc_MN.shape.columns;
    const auto of = [&](Extent g) {
      const Range rows{begin[g], begin[g + 1]};
      return std::pair{Product{a_MK.rows(rows).data, a_steps, dc_MN.rows(rows).data, dc_steps, db_GKN.view.rows({g * k, (g + 1) * k}).data, n, k, n,
                               rows.size(), db_GKN.accumulate},
                       Epilogue{}};
    };
    run_each<decltype(zero), decltype(result_zero)>(begin, k, n, a_MK.shape.rows, space.view(), of);
  });
}

}  // namespace dsx::kernels
