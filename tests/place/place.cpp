// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Streams, events and memory on the CPU, and on a GPU whatever this build and machine have of it.
///
///     if (cuda_device_count() > 0) round_trip(Place::cuda);
#include <dsx/core/error.hpp>
#include <dsx/place/event.hpp>
#include <dsx/place/memory_resource.hpp>
#include <dsx/tensor/view.hpp>

#include <doctest/doctest.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using namespace dsx;

namespace {

template <class F>
int number_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error.number();
  }
  return 0;
}

/// Bytes of this process that lie in memory.
Extent resident_bytes() {
  std::ifstream file{"/proc/self/statm"};
  Extent all = 0, resident = 0;
  file >> all >> resident;
  return resident * 4096;
}

/// Host to the place, filled in part, and back.
void round_trip(Place place) {
  Stream stream{place}, other{place};
  MemoryResource& memory = resource(place);
  constexpr Extent bytes = 10'001;
  std::vector<unsigned char> in(bytes), out(bytes);
  for (Extent i = 0; i < bytes; ++i) in[i] = static_cast<unsigned char>(i % 251);
  auto* const there = static_cast<std::byte*>(memory.allocate(bytes, 64));
  copy(there, in.data(), bytes, stream);
  fill(there + 100, std::byte{7}, 50, stream);
  Event filled{place};
  filled.record(stream);
  other.wait(filled);
  copy(out.data(), there, bytes, other);
  other.synchronize();
  CHECK(filled.passed());
  filled.synchronize();
  std::memset(in.data() + 100, 7, 50);
  CHECK(in == out);
  memory.deallocate(there, bytes);
}

}  // namespace

static_assert(!std::is_copy_constructible_v<Stream> && std::is_nothrow_move_constructible_v<Stream> && std::is_nothrow_move_assignable_v<Stream>);
static_assert(!std::is_copy_constructible_v<Event> && std::is_nothrow_move_constructible_v<Event> && std::is_nothrow_move_assignable_v<Event>);

TEST_CASE("bytes go to a place and come back in the stream's order") {
  round_trip(Place::cpu);
  if (cuda_device_count() > 0) round_trip(Place::cuda);
}

TEST_CASE("the CPU's streams and events are done at once") {
  Stream stream{Place::cpu};
  Event event{Place::cpu};
  CHECK(event.passed());
  event.record(stream);
  CHECK(event.passed());
  stream.wait(event);
  stream.synchronize();
  CHECK(stream.handle() == nullptr);
  Stream moved{std::move(stream)};
  CHECK(moved.place() == Place::cpu);
  copy(nullptr, nullptr, 0, moved);
  fill(nullptr, std::byte{1}, 0, moved);
}

TEST_CASE("host memory of every size is aligned, and large blocks begin as zeros") {
  MemoryResource& memory = resource(Place::cpu);
  for (const Extent alignment : {1, 8, 64, 4096, 2 << 20})
    for (const Extent bytes : {Extent{0}, Extent{1}, Extent{63}, Extent{4096}, Extent{256 * 1024 - 1}, Extent{256 * 1024}, Extent{3'000'001}}) {
      CAPTURE(alignment);
      CAPTURE(bytes);
      auto* const begin = static_cast<unsigned char*>(memory.allocate(bytes, alignment));
      REQUIRE(begin != nullptr);
      CHECK(reinterpret_cast<std::uintptr_t>(begin) % alignment == 0);
      if (bytes >= 256 * 1024) {
        CHECK(begin[0] == 0);
        CHECK(begin[bytes - 1] == 0);
      }
      if (bytes > 0) begin[0] = begin[bytes - 1] = 1;
      memory.deallocate(begin, bytes);
    }
  memory.deallocate(nullptr, 0);
}

TEST_CASE("host memory costs nothing until it is touched, and nothing once it is given back") {
  MemoryResource& memory = resource(Place::cpu);
  constexpr Extent bytes = 1_GiB, touched = 64_MiB;
  const Extent before = resident_bytes();
  void* const block = memory.allocate(bytes, 64);
  CHECK(resident_bytes() < before + 8_MiB);
  std::memset(block, 1, touched);
  CHECK(resident_bytes() > before + touched / 2);
  memory.deallocate(block, bytes);
  CHECK(resident_bytes() < before + touched / 2);
}

TEST_CASE("host memory that cannot be had is refused with its size") {
  CHECK(number_of([] { resource(Place::cpu).allocate(Extent(1) << 60, 64); }) == 803);
  CHECK(number_of([] { resource(Place::cpu).allocate(Extent(-1), 64); }) == 803);
  CHECK_THROWS_WITH_AS(resource(Place::cpu).allocate(Extent(1) << 60, 64), doctest::Contains("1152921504606846976 bytes"), Error);
}

TEST_CASE("a GPU is refused by number where there is none") {
  if (cuda_device_count() > 0) return;
  // 801: built without CUDA. 805: built with it, on a machine without a device or driver.
  const int number = number_of([] { Stream{Place::cuda}; });
  CHECK((number == 801 || number == 805));
  CHECK(number_of([] { Event{Place::cuda}; }) == number);
  CHECK(number_of([] { select_cuda_device(0); }) == number);
  CHECK(number_of([] { resource(Place::cuda); }) == number);
  CHECK(number_of([] { resource(Place::cuda, Tier::host); }) == number);
}

TEST_CASE("the disk has no addresses, and the host's memory is the CPU's own") {
  CHECK(number_of([] { resource(Place::cpu, Tier::disk); }) == 808);
  CHECK(number_of([] { resource(Place::cuda, Tier::disk); }) == 808);
  CHECK(&resource(Place::cpu, Tier::host) == &resource(Place::cpu));
  CHECK_FALSE(resource(Place::cpu).pinned());
}

TEST_CASE("views on the host are copied by the CPU's stream if they fit") {
  Stream stream{Place::cpu};
  std::vector<float> in{1, 2, 3, 4, 5, 6}, out(6);
  const View from{in.data(), {2, 3}, Element::f32}, to{out.data(), {3, 2}, Element::f32};
  copy(to, from, stream);
  CHECK(out == in);
  CHECK(number_of([&] { copy(to, from.rows({0, 1}), stream); }) == 301);
  View other = from;
  other.element = Element::i32;
  CHECK(number_of([&] { copy(to, other, stream); }) == 405);
  other = from, other.place = Place::cuda;
  CHECK(number_of([&] { copy(to, other, stream); }) == 807);
  CHECK(number_of([&] { copy(other, from, stream); }) == 807);
}

TEST_CASE("code of the host can't read or write a view on a GPU") {
  float number = 1;
  const View here{&number, {1, 1}, Element::f32}, there{&number, {1, 1}, Element::f32, Place::cuda, nullptr};
  CHECK(here.at<float>(0, 0) == 1);
  CHECK(number_of([&] { there.pointer<float>(); }) == 806);
  CHECK(number_of([&] { there.as<float>(); }) == 806);
  CHECK(number_of([&] { there.at<float>(0, 0) = 2; }) == 806);
  CHECK(there.address<float>() == &number);
  const View planned{nullptr, {1, 1}, Element::f32, Place::cuda, nullptr};
  CHECK(planned.as<float>().empty());
}

TEST_CASE("a launch's stream is the innermost scope's, of each thread its own") {
  const Stream cpu{Place::cpu};
  CHECK_THROWS_WITH_AS(gpu_launch_stream(), doctest::Contains("outside of every launch"), Error);
  const LaunchScope scope{cpu};
  CHECK_THROWS_WITH_AS(gpu_launch_stream(), doctest::Contains("a stream of the CPU"), Error);
  std::thread{[] { CHECK_THROWS_WITH_AS(gpu_launch_stream(), doctest::Contains("outside of every launch"), Error); }}.join();
  CHECK(number_of([] { gpu_launch_stream(); }) == 807);
}

TEST_CASE("a GPU names the failed call, refuses alignments that it can't have, and its events meet the CPU's streams") {
  if (cuda_device_count() == 0) return;
  CHECK(number_of([] { select_cuda_device(1000); }) == 802);
  CHECK(number_of([] { resource(Place::cuda).allocate(64, 4096); }) == 803);
  CHECK(number_of([] { resource(Place::cuda).allocate(Extent(1) << 60, 64); }) == 803);
  Stream here{Place::cpu}, there{Place::cuda};
  Event event{Place::cuda};
  Event at_once{Place::cpu};
  event.record(there);
  here.wait(event);
  CHECK(event.passed());
  event.record(here);
  CHECK(event.passed());
  at_once.record(there);
  there.wait(at_once);
}
