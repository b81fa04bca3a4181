// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Bounded memory, and memory of the host that is closed between uses.
#include <dsx/place/bounded_memory.hpp>
#include <dsx/place/offloaded.hpp>

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace dsx {

namespace {

constexpr Extent page = 4096;

void* mapped(Extent bytes, int protection) {
  void* const memory = bytes <= Extent(-1) / 2 ? mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;
  if (memory == MAP_FAILED) fail<803>(bytes, " bytes of memory can't be had from the operating system");
  return memory;
}

}  // namespace

BoundedMemory::BoundedMemory(Place place, Extent bytes) : MemoryResource{place}, memory_{nullptr}, bytes_{bytes}, free_{{0, bytes}} {
  if (place != Place::cpu) fail<818>("a bound of ", bytes, " bytes is asked for memory at ", name_of(place), "; only the CPU's can have one");
  free_.reserve(1'024);  // so that a step that comes back to what it had allocates nothing
  memory_ = static_cast<std::byte*>(mapped(round_up(bytes, page), PROT_READ | PROT_WRITE));
}
BoundedMemory::~BoundedMemory() {
  if (memory_) munmap(memory_, round_up(bytes_, page));
}

void* BoundedMemory::try_allocate(Extent bytes, Extent alignment) {
  for (auto piece = free_.begin(); piece != free_.end(); ++piece) {
    const Extent begin = round_up(piece->begin, alignment);
    if (begin > piece->end || piece->end - begin < bytes) continue;
    const Range before{piece->begin, begin}, behind{begin + bytes, piece->end};
    piece = free_.erase(piece);
    if (behind.size() > 0) piece = free_.insert(piece, behind);
    if (before.size() > 0) free_.insert(piece, before);
    taken_ += bytes;
    return memory_ + begin;
  }
  return nullptr;
}

void* BoundedMemory::allocate(Extent bytes, Extent alignment) {
  if (void* const memory = try_allocate(bytes, alignment)) return memory;
  Extent largest = 0;
  for (const Range& piece : free_) largest = std::max(largest, piece.size());
  fail<817>(bytes, " bytes don't fit on a device of ", bytes_, ", of which ", taken_, " are taken; the largest free piece has ", largest);
}

void BoundedMemory::deallocate(void* memory, Extent bytes) noexcept {
  if (!memory) return;
  taken_ -= bytes;
  const Extent begin = Extent(static_cast<std::byte*>(memory) - memory_);
  auto next = std::find_if(free_.begin(), free_.end(), [&](Range r) { return r.begin > begin; });
  next = free_.insert(next, {begin, begin + bytes});
  if (const auto after = next + 1; after != free_.end() && after->begin == next->end) next->end = after->end, free_.erase(after);
  if (next != free_.begin())
    if (const auto before = next - 1; before->end == next->begin) before->end = next->end, free_.erase(next);
}

void BoundedMemory::check(const View& v, bool at_host) const {
  if (!v.data || v.bytes() == 0 || (at_host ? !meets(v.data, v.bytes()) : holds(v.data, v.bytes()))) return;
  char there[32], here[32];
  std::snprintf(there, sizeof there, "%p", v.data), std::snprintf(here, sizeof here, "%p", static_cast<const void*>(memory_));
  fail<818>("a kernel's argument of ", v.shape.rows, " x ", v.shape.columns, " ", name_of(v.element), " elements, ", v.bytes(), " bytes at ", there,
            ", lies ", at_host ? "on" : "outside of", " the device, ", bytes_, " bytes at ", here,
            at_host ? ", and the kernel runs on the host" : "");
}

namespace {

/// In blocks of whole pages, each closed on its own.
class HostPages : public Offloaded {
 public:
  explicit HostPages(Place beside) : Offloaded{Place::cpu}, pinned_{beside == Place::cuda ? &resource(beside, Tier::host) : nullptr} {}

  void* allocate(Extent bytes, Extent alignment) override {
    void* const memory = pinned_ ? pinned_->allocate(bytes, alignment) : mapped(round_up(bytes, page), PROT_NONE);
    if (pinned_) std::memset(memory, 0, bytes);
    const auto at = std::find_if(blocks_.begin(), blocks_.end(), [&](const Block& b) { return b.begin > memory; });
    blocks_.insert(at, {static_cast<std::byte*>(memory), bytes, 0});
    return memory;
  }
  void deallocate(void* memory, Extent bytes) noexcept override {
    if (!memory) return;
    std::erase_if(blocks_, [&](const Block& b) { return b.begin == memory; });
    if (pinned_)
      pinned_->deallocate(memory, bytes);
    else
      munmap(memory, round_up(bytes, page));
  }
  bool holds(const void* resting) const override { return const_cast<HostPages*>(this)->find(resting) != nullptr; }
  void* open(void* resting, Extent, Access) override {
    Block& b = *find(resting);
    if (b.opened == 0 && !protect(b, PROT_READ | PROT_WRITE))
      fail<803>("the protection of ", b.bytes, " bytes of the host can't be changed: ", std::strerror(errno));
    ++b.opened;
    return resting;
  }
  void close(void* resting, Extent, Access) noexcept override {
    if (Block& b = *find(resting); --b.opened == 0) (void)protect(b, PROT_NONE);
  }

 private:
  struct Block {
    std::byte* begin;
    Extent bytes, opened;
  };
  Block* find(const void* at) {
    const auto behind = std::upper_bound(blocks_.begin(), blocks_.end(), at, [](const void* a, const Block& b) { return a < b.begin; });
    if (behind == blocks_.begin()) return nullptr;
    Block& b = *(behind - 1);
    return at < b.begin + b.bytes ? &b : nullptr;
  }
  bool protect(const Block& b, int protection) const {
    return pinned_ || b.bytes == 0 || mprotect(b.begin, round_up(b.bytes, page), protection) == 0;
  }

  MemoryResource* pinned_;
  std::vector<Block> blocks_{};  // by address
};

}  // namespace

std::unique_ptr<Offloaded> offloaded_to_host(Place place) { return std::make_unique<HostPages>(place); }

}  // namespace dsx
