// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A point in a stream's queue that the host or another stream can wait for.
///
///     Event sent{stream.place()};
///     sent.record(stream);
///     while (!sent.passed()) prepare_the_next();
#pragma once

#include <dsx/place/stream.hpp>

namespace dsx {

class Event {
 public:
  explicit Event(Place place);
  Event(Event&& other) noexcept;
  Event& operator=(Event&& other) noexcept;
  ~Event();

  Place place() const { return place_; }
  /// A cudaEvent_t; null on the CPU.
  void* handle() const { return handle_; }

  /// The event is now the end of what the stream has got so far. Across places the host waits for that end right here.
  void record(const Stream& stream);
  /// Also true if it was never recorded.
  bool passed() const;
  /// Blocks the host until the event has passed.
  void synchronize() const;

 private:
  Place place_;
  void* handle_ = nullptr;
};

}  // namespace dsx
