// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A sum over ranks that travels as signs (Tang et al. 2021, arXiv 2102.02888, section 4): what packing loses is owed, and added next time.
///
///     OneBit sum{mesh, Axes::data, {{0, 1000}, {1000, 1064}}, 1064, Element::f32};   // two tensors
///     sum.reduce(terms);                                                             // each rank's, then the sum, alike on all ranks
///
/// There and back in two hops, each one bit an element and a scale, ||x|| / sqrt(n), a tensor. First each rank packs its whole term and what
/// it owes, and rank r gets part r of all of them; then r packs the sum of its part and what it owes, and all gather the parts. Part r of a
/// tensor of n elements is elements [r c, (r + 1) c) for c = n / ranks rounded up, so the last parts may be shorter, or empty.
///
/// On the wire a hop takes, to and from each of the other ranks, the sum over tensors of 4 + (c / 8 rounded up) bytes.
#pragma once

#include <dsx/codec/codec.hpp>
#include <dsx/kernels/block_codec.hpp>
#include <dsx/kernels/elementwise.hpp>
#include <dsx/weights/reduction.hpp>

namespace dsx {

class OneBit : public Reduction {
 public:
  /// `tensors`: parts of the `size` elements that have scales of their own; others are left alone. `tier`: of what is owed.
  OneBit(const Mesh& mesh, Axes axes, std::vector<Range> tensors, Extent size, Element element, Tier tier = Tier::device)
      : session_{&mesh.session()}, ranks_{&mesh.along(axes)}, tier_{tier}, operands_(ranks_->size()) {
    Extent parts = 0;
    for (const Range whole : tensors) {
      const Extent each = (whole.size() + ranks_->size() - 1) / ranks_->size();
      tensors_.push_back({whole, each, parts, row_bytes_});
      parts += part(tensors_.back(), ranks_->rank()).size(), row_bytes_ += one_bit.packed_bytes(each);
    }
    const auto keep = [&](Extent elements) { return session_->memory.keep(Category::state, {elements, 1}, wide(element), tier); };
    owed_ = keep(size), owed_of_part_ = keep(parts);
  }
  OneBit(const OneBit&) = delete;
  OneBit& operator=(const OneBit&) = delete;
  ~OneBit() override {
    for (const View& v : {owed_, owed_of_part_}) session_->memory.give_back(Category::state, v, tier_);
  }

  void reduce(const View& terms) override {
    Memory& memory = session_->memory;
    const ScratchScope scope{memory};
    const Shape rows{ranks_->size(), row_bytes_};
    const View leaving = memory.scratch.take(rows, Element::u8), arrived = memory.scratch.take(rows, Element::u8);
    const Opened owed{memory, owed_, Access::update}, owed_of_part{memory, owed_of_part_, Access::update};

    session_->launch(kernels::zero, leaving);  // the ends of short parts travel too
    for (const Tensor& t : tensors_)
      session_->launch([&](const View& x, const View& error) { pack(t, x, error, leaving); }, terms.part(t.whole), owed.view().part(t.whole));
    ranks_->all_to_all(leaving, arrived).wait();

    for (const Tensor& t : tensors_) {
      const Extent size = part(t, ranks_->rank()).size();
      const ScratchScope one{memory};
      const View sum = memory.scratch.take({size, 1}, terms.element);
      session_->launch([&](const View& x, const View& error) { add_and_pack(t, arrived, x, error, leaving); }, sum,
                       owed_of_part.view().part({t.owed_of_part, t.owed_of_part + size}));
    }
    ranks_->all_gather(leaving.rows({ranks_->rank(), ranks_->rank() + 1}), leaving).wait();
    for (const Tensor& t : tensors_) session_->launch([&](const View& x) { unpack(t, leaving, x); }, terms.part(t.whole));
  }

  std::vector<Owed> owed() const override { return {{"owed", owed_}, {"owed_of_part", owed_of_part_}}; }

 private:
  struct Tensor {
    Range whole;
    Extent each;          // elements of a part
    Extent owed_of_part;  // where this rank's part begins there
    Extent at;            // bytes, within a row
  };
  Range part(const Tensor& t, Rank r) const { return {std::min(t.whole.size(), r * t.each), std::min(t.whole.size(), (r + 1) * t.each)}; }
  /// Where part r of a tensor stands packed in row `row`.
  View packed(const Tensor& t, Rank r, const View& rows, Rank row) const {
    return rows.rows({row, row + 1}).part({t.at, t.at + one_bit.packed_bytes(part(t, r).size())});
  }

  void pack(const Tensor& t, const View& x, const View& error, const View& rows) const {
    const float scale = kernels::sign_scale(x, error);
    for (Rank r = 0; r < ranks_->size(); ++r) kernels::quantize_signs(scale, x.part(part(t, r)), error.part(part(t, r)), packed(t, r, rows, r));
  }
  void add_and_pack(const Tensor& t, const View& arrived, const View& sum, const View& error, const View& rows) {
    const Rank mine = ranks_->rank();
    for (Rank r = 0; r < ranks_->size(); ++r) operands_[r] = packed(t, mine, arrived, r);
    kernels::dequantize_sum(one_bit, operands_, {sum, false});
    kernels::quantize_with_feedback(one_bit, sum, error, packed(t, mine, rows, mine));
  }
  void unpack(const Tensor& t, const View& rows, const View& x) const {
    for (Rank r = 0; r < ranks_->size(); ++r) kernels::dequantize(one_bit, packed(t, r, rows, r), {x.part(part(t, r)), false});
  }

  Session* session_;
  const Communicator* ranks_;
  Tier tier_;
  std::vector<Tensor> tensors_{};
  std::vector<View> operands_;
  Extent row_bytes_ = 0;
  View owed_{}, owed_of_part_{};  // of this rank's term; of the sum that it makes
};

}  // namespace dsx
