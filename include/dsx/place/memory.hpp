// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A rank's memory by category and tier. A dry run and a real run make the same calls, so plan and measurement can't differ.
///
///     Memory memory{Place::cuda, stream, false};
///     View w = memory.keep(Category::weights, {n, 1}, Element::f32);              // lives as long as the program
///     View m = memory.keep(Category::state, {n, 1}, Element::f32, Tier::host);    // closed but while an Opened lives
///     ScratchScope scope{memory};                                      // what is taken from scratch dies with it
///     View t = memory.scratch.take({rows, 64}, Element::f32);
#pragma once

#include <dsx/place/bounded_memory.hpp>
#include <dsx/place/disk.hpp>
#include <dsx/place/offloaded.hpp>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace dsx {

/// What a byte is for. `gathered`: weights and gradients while their unit computes; `saved`: what backward reads;
/// `carried`: values between units, and those that backward computes again; `scratch`: dies with its unit.
enum class Category : std::uint8_t { weights, gradients, state, gathered, saved, carried, scratch };
inline constexpr std::array<std::string_view, 7> category_names{"weights", "gradients", "state", "gathered", "saved", "carried", "scratch"};
inline constexpr Extent categories = category_names.size();
inline constexpr std::array<std::string_view, 3> tier_names{"device", "host", "disk"};
inline constexpr Extent tiers = tier_names.size();

struct Tally {
  Extent now = 0, peak = 0;
  void add(Extent bytes) { peak = std::max(peak, now += bytes); }
  void drop(Extent bytes) { now -= bytes; }
};

/// The bytes that a buffer takes: the next one begins aligned as well.
constexpr Extent aligned(Extent bytes, Place place = Place::cpu) { return round_up(bytes, alignment_at(place)); }

/// Memory of a resource, for as long as it lives.
class Block {
 public:
  Block() = default;
  Block(MemoryResource& from, Extent bytes)
      : memory_{bytes ? static_cast<std::byte*>(from.allocate(bytes, alignment_at(from.place()))) : nullptr, Free{&from, bytes}} {}
  std::byte* data() const { return memory_.get(); }

 private:
  struct Free {
    MemoryResource* from;
    Extent bytes;
    void operator()(std::byte* p) const { from->deallocate(p, bytes); }
  };
  std::unique_ptr<std::byte, Free> memory_{};
};

/// Buffers that die in the reverse order of their birth. Dry (from no resource) it only counts; otherwise reserve() comes first.
class Stack {
 public:
  Stack(Tally& tally, Place place, MemoryResource* from) : tally_{&tally}, place_{place}, from_{from} {}

  View take(Shape shape, Element element) {
    const Extent begin = top_, bytes = aligned(shape.size() * bytes_of(element), place_);
    if (from_ && top_ + bytes > capacity_) fail<401>("the plan holds ", capacity_, " bytes, the run asks for ", top_ + bytes);
    top_ += bytes;
    peak_ = std::max(peak_, top_);
    tally_->add(bytes);
    return {from_ ? block_.data() + begin : nullptr, shape, element, place_, nullptr};
  }
  Extent top() const { return top_; }
  Extent peak() const { return peak_; }
  void pop(Extent top) { tally_->drop(top_ - top), top_ = top; }
  void forget_peak() { peak_ = top_; }
  void reserve(Extent bytes) {
    if (!from_ || bytes <= capacity_) return;
    if (top_ != 0) fail<401>("an arena in use can't grow: ", top_, " of ", capacity_, " bytes are taken");
    block_ = Block{}, capacity_ = 0;  // the old one goes first, and the new one may not be had
    block_ = Block{*from_, bytes}, capacity_ = bytes;
  }

 private:
  Tally* tally_;
  Place place_;
  MemoryResource* from_;
  Block block_{};
  Extent top_ = 0, peak_ = 0, capacity_ = 0;
};

/// Buffers of things that take turns (unit after unit): one thing's at the low end, the next one's at the high end, so that two
/// neighbours live together and all fit where the largest pair does. What was ever needed stays counted.
class DoubleStack {
 public:
  DoubleStack(Tally& tally, Place place, MemoryResource* from) : tally_{&tally}, place_{place}, from_{from} {}

  /// `turn`: odd and even ones lie at different ends.
  View take(Extent turn, Shape shape, Element element) {
    const Extent bytes = aligned(shape.size() * bytes_of(element), place_);
    Extent& top = tops_[turn % 2];
    if (const Extent both = tops_[0] + tops_[1] + bytes; both > peak_) {
      if (from_ && both > capacity_) fail<401>("the plan holds ", capacity_, " bytes, the run asks for ", both);
      tally_->add(both - peak_), peak_ = both;
    }
    const Extent begin = turn % 2 == 0 ? top : capacity_ - top - bytes;
    top += bytes;
    return {from_ ? block_.data() + begin : nullptr, shape, element, place_, nullptr};
  }
  Extent top(Extent turn) const { return tops_[turn % 2]; }
  /// All that is taken at one end, as bytes.
  View taken(Extent turn) const {
    const Extent top = tops_[turn % 2];
    return {from_ ? block_.data() + (turn % 2 == 0 ? 0 : capacity_ - top) : nullptr, {top, 1}, Element::u8, place_, nullptr};
  }
  void pop(Extent turn, Extent top) { tops_[turn % 2] = top; }
  Extent peak() const { return peak_; }
  void forget_peak() { tally_->drop(peak_), peak_ = 0; }
  void reserve(Extent bytes) {
    if (!from_ || bytes <= capacity_) return;
    if (tops_[0] + tops_[1] != 0) fail<401>("an arena in use can't grow: ", tops_[0] + tops_[1], " of ", capacity_, " bytes are taken");
    block_ = Block{}, capacity_ = 0;  // the old one goes first, and the new one may not be had
    block_ = Block{*from_, bytes}, capacity_ = bytes;
  }

 private:
  Tally* tally_;
  Place place_;
  MemoryResource* from_;
  Block block_{};
  std::array<Extent, 2> tops_{};
  Extent peak_ = 0, capacity_ = 0;
};

/// Buffers that die in any order: a free list of exact sizes, forgotten whenever nothing is taken. Its footprint is counted,
/// not only what lives, so that the order in which buffers come and go can't change the plan.
class Pool {
 public:
  Pool(Tally& tally, Place place, MemoryResource* from) : tally_{&tally}, place_{place}, from_{from} { slots_.reserve(256); }

  View take(Shape shape, Element element) {
    const Extent bytes = aligned(shape.size() * bytes_of(element), place_);
    auto slot = std::find_if(slots_.begin(), slots_.end(), [&](const Slot& s) { return s.free && s.bytes == bytes; });
    if (slot == slots_.end()) {
      if (from_ && footprint_ + bytes > capacity_) fail<401>("the plan holds ", capacity_, " bytes, the run asks for ", footprint_ + bytes);
      slot = slots_.insert(slots_.end(), {footprint_, bytes, true});
      footprint_ += bytes;
      peak_ = std::max(peak_, footprint_);
      tally_->add(bytes);
    }
    slot->free = false;
    ++taken_;
    return {from_ ? block_.data() + slot->begin : nullptr, shape, element, place_, nullptr};
  }
  void give(const View& v) {
    const Extent bytes = aligned(v.bytes(), place_);
    const Extent begin = from_ ? Extent(v.address<std::byte>() - block_.data()) : 0;
    // Without addresses any taken buffer of that size is the one.
    std::find_if(slots_.begin(), slots_.end(), [&](const Slot& s) { return !s.free && s.bytes == bytes && (!from_ || s.begin == begin); })->free =
        true;
    if (--taken_ == 0) slots_.clear(), tally_->drop(footprint_), footprint_ = 0;
  }
  Extent peak() const { return peak_; }
  void forget_peak() { peak_ = footprint_; }
  void reserve(Extent bytes) {
    if (!from_ || bytes <= capacity_) return;
    if (taken_ != 0) fail<401>("an arena in use can't grow: ", taken_, " buffers are taken");
    block_ = Block{}, capacity_ = 0;  // the old one goes first, and the new one may not be had
    block_ = Block{*from_, bytes}, capacity_ = bytes;
  }

 private:
  struct Slot {
    Extent begin, bytes;
    bool free;
  };
  Tally* tally_;
  Place place_;
  MemoryResource* from_;
  Block block_{};
  std::vector<Slot> slots_{};
  Extent footprint_ = 0, peak_ = 0, capacity_ = 0, taken_ = 0;
};

struct MemoryOptions {
  Extent device_bytes = 0;  // on the CPU: the device is one mapping of that size; 0: there is no bound
};

/// All memory of a rank. What lives as long as the program is a block each; the arenas are sized by a dry run.
class Memory {
 public:
  /// `stream`, which must outlive it, is where kept memory is zeroed. Dry there need be no such place on this machine.
  Memory(Place place, const Stream& stream, bool dry, MemoryOptions options = {})
      : place_{place},
        stream_{&stream},
        dry_{dry},
        budget_{!dry && options.device_bytes > 0 ? std::make_unique<BoundedMemory>(place, options.device_bytes) : nullptr},
        host_{dry ? nullptr : offloaded_to_host(place)} {}
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  Place place() const { return place_; }
  bool dry() const { return dry_; }
  /// A stack of one's own, as a pass has for what it saves.
  Stack stack(Category c, Tier tier = Tier::device) { return {tally(c, tier), place_of(tier), from(tier)}; }
  Tally& tally(Category c, Tier tier = Tier::device) { return tallies_[index(c, tier)]; }
  const Tally& tally(Category c, Tier tier = Tier::device) const { return tallies_[index(c, tier)]; }
  Extent peak_bytes(Tier tier = Tier::device) const {
    Extent sum = 0;
    for (Extent c = 0; c < categories; ++c) sum += tally(Category(c), tier).peak;
    return sum;
  }

  /// By tier, then by category.
  using Peaks = std::array<Extent, tiers * categories>;
  Peaks peaks() const {
    Peaks peaks{};
    for (Extent i = 0; i < peaks.size(); ++i) peaks[i] = tallies_[i].peak;
    return peaks;
  }
  /// Forgets the arenas' use since `before` was read: of a dry step that only learned.
  void forget_since(const Peaks& before) {
    gathered.forget_peak(), reducing.forget_peak(), saved_window.forget_peak();
    for (Extent i = 0; i < before.size(); ++i) tallies_[i].peak = std::max(before[i], tallies_[i].now);
    scratch.forget_peak(), host_scratch.forget_peak(), carried.forget_peak();
  }
  /// Makes the arenas large enough for what a dry twin used.
  void reserve_as(const Memory& twin) {
    gathered.reserve(twin.gathered.peak()), reducing.reserve(twin.reducing.peak()), saved_window.reserve(twin.saved_window.peak());
    scratch.reserve(twin.scratch.peak()), host_scratch.reserve(twin.host_scratch.peak()), carried.reserve(twin.carried.peak());
  }

  /// Zeroed memory for as long as this Memory lives.
  View keep(Category category, Shape shape, Element element, Tier tier = Tier::device) {
    View v{nullptr, shape, element, place_of(tier), nullptr};
    const Extent bytes = aligned(v.bytes(), v.place);
    tally(category, tier).add(bytes);
    if (dry_) return v;
    v.data = kept_.emplace_back(*from(tier), bytes).data();
    if (tier == Tier::device) fill(v.data, std::byte{0}, bytes, *stream_);  // what rests elsewhere begins as zeros
    return v;
  }
  /// Ends the life of what keep() gave.
  void give_back(Category category, const View& v, Tier tier = Tier::device) {
    tally(category, tier).drop(aligned(v.bytes(), v.place));
    std::erase_if(kept_, [&](const Block& b) { return b.data() == v.data && v.data; });
  }
  /// What takes care of a view that rests off the device; none for others, and dry.
  Offloaded* offloaded(const View& v) const {
    if (host_ && host_->holds(v.data)) return host_.get();
    return disk_ && disk_->holds(v.data) ? disk_.get() : nullptr;
  }
  /// What rests off the device will be opened soon.
  void ahead(const View& v) const {
    if (Offloaded* const by = offloaded(v)) by->ahead(v.data, v.bytes());
  }
  /// From now on something may rest on the disk. There is one a session: another is refused, as dsx-E819.
  void use_disk(const DiskOptions& options) {
    if (disk_options_) {
      const auto& [folder, bytes] = *disk_options_;
      if (folder == options.folder && bytes == options.resident_bytes) return;
      fail<819>("what rests on the disk lies in \"", folder, "\" with ", bytes, " bytes in memory; a session has one disk, and \"", options.folder,
                "\" with ", options.resident_bytes, " is asked for");
    }
    if (!dry_) disk_ = offloaded_to_disk(options);
    disk_options_ = {options.folder, options.resident_bytes};
    tally(Category::scratch, Tier::host).add(options.resident_bytes);  // the pool
  }
  /// The one mapping that is the device, where its bytes are bounded.
  const BoundedMemory* budget() const { return budget_.get(); }

  /// Until it is called again with `false`, scratch is the host's: for an update that runs there.
  void turn_to_host(bool at_host) {
    if (std::exchange(at_host_, at_host) != at_host) std::swap(scratch, host_scratch);
  }
  bool at_host() const { return at_host_; }

 private:
  static Extent index(Category c, Tier tier) { return Extent(tier) * categories + Extent(c); }
  Place place_of(Tier tier) const { return tier == Tier::device ? place_ : Place::cpu; }
  MemoryResource* from(Tier tier) const {
    if (dry_) return nullptr;
    if (tier == Tier::host) return host_.get();
    if (tier == Tier::disk) return disk_.get();
    return budget_ ? budget_.get() : &resource(place_, tier);
  }
  MemoryResource* open_host() const { return dry_ ? nullptr : &resource(place_, Tier::host); }

  Place place_;
  const Stream* stream_;
  bool dry_, at_host_ = false;
  std::unique_ptr<BoundedMemory> budget_;
  std::unique_ptr<Offloaded> host_, disk_{};
  std::optional<std::pair<std::string, Extent>> disk_options_{};  // folder and bound
  std::array<Tally, tiers * categories> tallies_{};
  std::vector<Block> kept_{};

 public:
  DoubleStack gathered{tally(Category::gathered), place_, from(Tier::device)};   // weights of the unit that computes and of the next one
  DoubleStack reducing{tally(Category::gathered), place_, from(Tier::device)};   // gradients of the unit that computes and of the last one
  DoubleStack saved_window{tally(Category::saved), place_, from(Tier::device)};  // what is saved of two neighbours, where more rests elsewhere
  Stack scratch = stack(Category::scratch);
  Stack host_scratch{tally(Category::scratch, Tier::host), Place::cpu, open_host()};  // of updates that run there, never closed
  Pool carried{tally(Category::carried), place_, from(Tier::device)};
};

/// What rests off the device is readable and writable while it lives; everything else just stays where it is.
class [[nodiscard]] Opened {
 public:
  Opened(const Memory& memory, const View& resting, Access access)
      : by_{memory.offloaded(resting)}, resting_{resting}, view_{resting}, access_{access} {
    if (by_) view_.data = by_->open(resting_.data, resting_.bytes(), access_);
  }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
  ~Opened() {
    if (by_) by_->close(resting_.data, resting_.bytes(), access_);
  }
  /// Where it is to be found now.
  const View& view() const { return view_; }

 private:
  Offloaded* by_;
  View resting_, view_;
  Access access_;
};
/// The same, and until its end `name` says where it is to be found.
class [[nodiscard]] OpenedHere {
 public:
  OpenedHere(const Memory& memory, View& name, Access access) : opened_{memory, name, access}, name_{&name}, resting_{name} { name = opened_.view(); }
  ~OpenedHere() { *name_ = resting_; }

 private:
  Opened opened_;
  View* name_;
  View resting_;
};

/// Gives back at its end what was taken from a stack since its beginning, exceptions included.
class [[nodiscard]] StackScope {
 public:
  explicit StackScope(Stack& stack) : stack_{&stack}, top_{stack.top()} {}
  StackScope(const StackScope&) = delete;
  StackScope& operator=(const StackScope&) = delete;
  ~StackScope() { stack_->pop(top_); }

 private:
  Stack* stack_;
  Extent top_;
};
struct [[nodiscard]] ScratchScope : StackScope {
  explicit ScratchScope(Memory& memory) : StackScope{memory.scratch} {}
};

}  // namespace dsx
