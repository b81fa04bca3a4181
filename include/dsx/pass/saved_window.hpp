// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What a pass saves for backward, where it rests off the device: unit by unit, with two neighbours on the device at most.
///
///     window.enter(unit);  View x = window.take(unit, shape, element);
///     window.leave(unit);                        // the unit before sets off to its tier
///     window.park();                             // forward has ended: nothing stays
///     window.bring(unit); window.bring(unit - 1); ... window.drop(unit);
///
/// Neighbours lie at different ends of one arena, which passes under way share, each unit always at the same addresses: so a value's view
/// stays true while its bytes travel.
#pragma once

#include <dsx/comm/session.hpp>
#include <dsx/pass/operation.hpp>

namespace dsx {

class SavedWindow {
 public:
  SavedWindow(Session& session, Tier tier) : session_{&session}, tier_{tier}, rest_{session.memory.stack(Category::saved, tier)} {}

  /// Whether anything rests off the device.
  bool used() const { return tier_ != Tier::device; }
  View take(Unit unit, Shape shape, Element element) { return arena().take(unit, shape, element); }
  Extent top(Unit unit) const { return used() ? arena().top(unit) : 0; }
  void pop(Unit unit, Extent top) {
    if (used()) arena().pop(unit, top);
  }

  void open(Unit first) { first_ = first, regions_.clear(), enter(first); }
  void enter(Unit unit) {
    if (used() && regions_.size() == unit - first_) regions_.push_back({});
  }
  void leave(Unit unit) {
    if (used() && unit > first_) send(unit - 1);
  }
  void park() {
    for (Unit u = first_; u < first_ + regions_.size(); ++u) send(u);
  }
  /// It will be brought soon.
  void ahead(Unit unit) const {
    if (unit >= first_ && unit - first_ < regions_.size()) session_->memory.ahead(regions_[unit - first_].rest);
  }
  void bring(Unit unit) {
    if (unit < first_ || unit - first_ >= regions_.size() || !regions_[unit - first_].away) return;
    Region& r = regions_[unit - first_];
    session_->move(r.rest, take(unit, r.rest.shape, Element::u8)), r.away = false;
  }
  /// Backward through the unit has ended.
  void drop(Unit unit) {
    if (!used()) return;
    pop(unit, 0);
    rest_.pop(regions_[unit - first_].below), regions_.resize(unit - first_);
  }
  void clear() {
    if (used()) pop(0, 0), pop(1, 0), rest_.pop(0), regions_.clear();
  }

  void forget_peak() { rest_.forget_peak(); }
  void plan_as(const SavedWindow& twin) {
    if (used()) rest_.reserve(twin.rest_.peak());
  }

 private:
  struct Region {
    View rest{};
    Extent below = 0;  // of the stack at rest
    bool away = false;
  };
  DoubleStack& arena() const { return session_->memory.saved_window; }
  void send(Unit unit) {
    Region& r = regions_[unit - first_];
    if (std::exchange(r.away, true)) return;
    const View here = arena().taken(unit);
    r.below = rest_.top(), r.rest = rest_.take(here.shape, here.element);
    session_->move(here, r.rest);
    pop(unit, 0);
  }

  Session* session_;
  Tier tier_;
  Stack rest_;
  Unit first_ = 0;
  std::vector<Region> regions_{};  // of units from first_
};

}  // namespace dsx
