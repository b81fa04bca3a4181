// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What travels or rests packed: weights on their way to the whole (qwZ), gradients on their way to a sum (qgZ; both ZeRO++, Wang et al.
/// 2023, arXiv 2306.10209), and optimizer state (Dettmers et al. 2022, arXiv 2110.02861).
///
///     PackedReduction reduction{mesh, Axes::data, {codec, true, Tier::device}, size, Element::f32};   // once for a bundle
///     reduction.begin(gradient, take);                                                                // the first hop is under way
///     reduction.finish(take);                                                                         // this rank's part holds the sum
#pragma once

#include <dsx/codec/codec.hpp>
#include <dsx/core/on_exception.hpp>
#include <dsx/kernels/block_codec.hpp>
#include <dsx/weights/reduction.hpp>

#include <algorithm>
#include <cmath>

namespace dsx {

/// Parts of a whole, each packed alone by its rank: row r is that of rank r.
namespace packed_parts {

inline View room(const Codec& codec, Extent parts, Extent whole, auto take) {
  return take(Shape{parts, codec.packed_bytes(whole / parts)}, Element::u8);
}
inline View row(const View& packed, Extent r) { return packed.rows({r, r + 1}); }
/// All of them, the rank's own too: every rank computes with the same values.
inline void unpack(const Session& session, const Codec& codec, const View& packed, const View& whole) {
  const Extent parts = packed.shape.rows;
  for (Extent r = 0; r < parts; ++r)
    session.launch(kernels::dequantize, codec, row(packed, r), Grad{whole.part(share({0, whole.size()}, parts, r)), false});
}

}  // namespace packed_parts

/// How a reduction packs, whether what packing lost is added to the next gradient (Seide et al. 2014), and where that rests until then.
struct Packing {
  const Codec* codec;
  bool feedback = false;
  Tier tier = Tier::device;
};

/// Packs values, and remembers what that lost where there is feedback.
class Packer {
 public:
  /// `size`: elements that it will be asked to pack.
  Packer(Session& session, const Packing& how, Extent size, Element element)
      : session_{&session}, how_{how}, owed_{how.feedback ? session.memory.keep(Category::gradients, {size, 1}, wide(element), how.tier) : View{}} {}

  /// Each part of `values` into a row.
  void pack(const View& values, const View& rows, auto take) const {
    with_owed(take, [&](const View& owed) {
      for (Extent r = 0; r < rows.shape.rows; ++r) {
        const Range part = share({0, values.size()}, rows.shape.rows, r);
        const View packed = packed_parts::row(rows, r);
        if (owed.size())
          session_->launch(kernels::quantize_with_feedback, *how_.codec, values.part(part), owed.part(part), packed);
        else
          session_->launch(kernels::quantize, *how_.codec, values.part(part), packed);
      }
    });
  }
  const View& owed() const { return owed_; }

 private:
  /// f(owed) where kernels run: on the device with a copy, if it rests elsewhere.
  void with_owed(auto take, auto f) const {
    if (owed_.size() == 0) return f(View{});
    if (how_.tier == Tier::device || session_->memory.at_host()) return f(Opened{session_->memory, owed_, Access::update}.view());
    const View here = take(owed_.shape, owed_.element);
    session_->move(owed_, here);
    f(here);
    session_->move(here, owed_);
  }

  Session* session_;
  Packing how_;
  View owed_;
};

/// A reduce-scatter in hops: near ranks exchange packed slices and add them up, then far ones do with what is left. Each hop packs once, so
/// that a sum over N ranks meets two roundings and not N.
class PackedReduction {
 public:
  /// `size`: elements of the whole, which the ranks divide.
  PackedReduction(const Mesh& mesh, Axes axes, const Packing& how, Extent size, Element element) : session_{&mesh.session()}, codec_{how.codec} {
    const bool two = within(Axes::data, axes) && mesh.size(Axes::inner) > 1 && mesh.size(Axes::outer) > 1;
    for (const Axes hop : {two ? Axes::inner : axes, two ? Axes::outer : Axes::none}) {
      if (mesh.size(hop) == 1) continue;
      const Communicator& ranks = mesh.along(hop);
      hops_.push_back({&ranks, Packer{*session_, how, size, element}, {}, {}, {}});
      size /= ranks.size();
      operands_.resize(std::max(operands_.size(), ranks.size()));
    }
  }

  /// `take(shape, element)` gives memory that stays until finish() is over.
  void begin(const View& whole, auto take) { set_off(hops_.front(), whole, take); }
  /// This rank's part of what begin() was given.
  View finish(auto take) {
    View sum = arrive(hops_.front());
    for (Extent hop = 1; hop < hops_.size(); ++hop) set_off(hops_[hop], sum, take), sum = arrive(hops_[hop]);
    return sum;
  }
  void abandon() {
    for (Hop& hop : hops_) hop.lease = {};
  }
  std::vector<Owed> owed() const {
    constexpr const char* names[] = {"owed", "owed_far"};
    std::vector<Owed> all;
    for (Extent hop = 0; hop < hops_.size(); ++hop) all.push_back({names[hop], hops_[hop].packer.owed()});
    return all;
  }

 private:
  struct Hop {
    const Communicator* ranks;
    Packer packer;
    View values, arrived;
    Lease lease;
  };
  void set_off(Hop& hop, const View& values, auto take) {
    const View leaving = packed_parts::room(*codec_, hop.ranks->size(), values.size(), take);
    hop.arrived = packed_parts::room(*codec_, hop.ranks->size(), values.size(), take), hop.values = values;
    hop.packer.pack(values, leaving, take);
    hop.lease = hop.ranks->all_to_all(leaving, hop.arrived);
  }
  View arrive(Hop& hop) {
    hop.lease.wait();
    const Extent ranks = hop.ranks->size();
    for (Rank r = 0; r < ranks; ++r) operands_[r] = packed_parts::row(hop.arrived, r);
    const View mine = hop.values.part(hop.ranks->part(hop.values.size()));
    session_->launch(kernels::dequantize_sum, *codec_, std::span<const View>{operands_.data(), ranks}, Grad{mine, false}, 1.0);
    return mine;
  }

  Session* session_;
  const Codec* codec_;
  std::vector<Hop> hops_{};
  std::vector<View> operands_{};
};

/// An all-reduce: each rank's part is summed there, packed once more and sent to all.
class PackedSum : public Reduction {
 public:
  PackedSum(const Mesh& mesh, Axes axes, const Packing& how, Extent size, Element element)
      : session_{&mesh.session()},
        ranks_{&mesh.along(axes)},
        codec_{how.codec},
        to_parts_{mesh, axes, how, size, element},
        from_parts_{*session_, how, size / ranks_->size(), element} {}

  void reduce(const View& gradient) override {
    const ScratchScope scope{session_->memory};
    const auto take = [this](Shape shape, Element element) { return session_->memory.scratch.take(shape, element); };
    const OnException abandon{[this] { to_parts_.abandon(); }};
    to_parts_.begin(gradient, take);
    const View mine = to_parts_.finish(take), packed = packed_parts::room(*codec_, ranks_->size(), gradient.size(), take);
    const View own = packed_parts::row(packed, ranks_->rank());
    from_parts_.pack(mine, own, take);
    ranks_->all_gather(own, packed).wait();
    packed_parts::unpack(*session_, *codec_, packed, gradient);
  }
  std::vector<Owed> owed() const override {
    std::vector<Owed> all = to_parts_.owed();
    all.push_back({"owed_to_all", from_parts_.owed()});
    return all;
  }

 private:
  Session* session_;
  const Communicator* ranks_;
  const Codec* codec_;
  PackedReduction to_parts_;
  Packer from_parts_;
};

/// Optimizer state that rests packed. A mean of squares is packed as its root, which halves the range of exponents; and no less than a
/// step of its block, for Adam divides by it.
inline void unpack_state(const Codec& codec, View packed, View values, bool squares) {
  kernels::dequantize(codec, packed, {values, false});
  if (squares)
    dispatch(values.element, [&](auto zero) {
      using W = Wide<decltype(zero)>;
      for (auto& x : std::span{values.pointer<decltype(zero)>(), values.size()}) x = decltype(zero)(W(x) * W(x));
    });
}
/// What `values` holds afterwards is undefined.
inline void pack_state(const Codec& codec, View values, View packed, bool squares) {
  if (squares)
    dispatch(values.element, [&](auto zero) {
      using W = Wide<decltype(zero)>;
      auto* x = values.pointer<decltype(zero)>();
      for (Extent begin = 0; begin < values.size(); begin += codec.block) {
        const Extent end = std::min(values.size(), begin + codec.block);
        W most = 0;
        for (Extent i = begin; i < end; ++i) x[i] = decltype(zero)(std::sqrt(W(x[i]))), most = std::max(most, W(x[i]));
        const W least = most / W(reference::top_code(codec)) * W(0.51);  // what still rounds to one step
        for (Extent i = begin; i < end; ++i) x[i] = decltype(zero)(std::max(W(x[i]), least));
      }
    });
  kernels::quantize(codec, values, packed);
}

}  // namespace dsx
