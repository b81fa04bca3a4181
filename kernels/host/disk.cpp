// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// A file for what rests on the disk, a pool of buffers, and threads that read and write.
#include <dsx/place/bounded_memory.hpp>
#include <dsx/place/disk.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <filesystem>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace dsx {

namespace {

constexpr Extent page = 4096;

/// A file that is removed with its owner.
class RestFile {
 public:
  explicit RestFile(const std::string& folder) {
    std::error_code error;
    const std::string where = folder.empty() ? std::filesystem::temp_directory_path(error).string() : folder;
    if (!std::filesystem::is_directory(where, error))
      fail<819>("what rests on the disk should lie in \"", where, "\", which is no folder", error ? concat(": ", error.message()) : std::string{});
    static std::atomic<int> files = 0;
    path_ = concat(where, "/dsx-", Extent(getpid()), "-", Extent(files++), ".rest");
    file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file_ < 0) fail<820>("the file ", path_, " for what rests on the disk can't be made: ", std::strerror(errno));
  }
  RestFile(const RestFile&) = delete;
  RestFile& operator=(const RestFile&) = delete;
  ~RestFile() {
    if (file_ < 0) return;
    ::close(file_);
    unlink(path_.c_str());
  }

  /// Longer, with zeros that have their room on the disk.
  void extend(Extent from, Extent bytes) {
    const int error = posix_fallocate(file_, off_t(from), off_t(bytes));
    if (error == 0) return;
    std::error_code unknown;
    const auto space = std::filesystem::space(path_, unknown);
    if (ftruncate(file_, off_t(from)) != 0) errno = 0;  // the file stays as long as it could get
    fail<821>("the file ", path_, " of ", from, " bytes can't grow by ", bytes, ": ", std::strerror(error), "; the disk has ",
              unknown ? Extent{0} : Extent(space.available), " bytes left");
  }
  void zero(Extent from, Extent bytes) const {
    static constexpr std::array<std::byte, 16 * page> zeros{};
    for (Extent at = 0, done = 0; at < bytes; at += done)
      if (const int error = write(zeros.data(), std::min(bytes - at, zeros.size()), from + at, done))
        fail<824>(bytes, " bytes at ", from, " of the file ", path_, " can't be written, ", at + done, " were: ", std::strerror(error));
  }
  /// 0, or the error's number; at the end of the file `done` is less than `bytes`.
  int read(std::byte* to, Extent bytes, Extent offset, Extent& done) const {
    for (done = 0; done < bytes;) {
      const ssize_t n = pread(file_, to + done, bytes - done, off_t(offset + done));
      if (n < 0 && errno != EINTR) return errno;
      if (n == 0) return 0;
      if (n > 0) done += Extent(n);
    }
    return 0;
  }
  /// As read(): a file that was cut off isn't made long again, for what would lie between is lost.
  int write(const std::byte* from, Extent bytes, Extent offset, Extent& done) const {
    done = 0;
    struct stat now{};
    if (fstat(file_, &now) != 0) return errno;
    if (Extent(now.st_size) < offset + bytes) return done = std::max(Extent(now.st_size), offset) - offset, 0;
    for (; done < bytes;) {
      const ssize_t n = pwrite(file_, from + done, bytes - done, off_t(offset + done));
      if (n < 0 && errno != EINTR) return errno;
      if (n > 0) done += Extent(n);
    }
    return 0;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int file_ = -1;
};

class Disk : public Offloaded {
 public:
  explicit Disk(const DiskOptions& options)
      : Offloaded{Place::cpu},
        observer_{options.observer},
        file_{options.folder},
        pool_{Place::cpu, std::max(round_up(options.resident_bytes, page), page)} {
    copies_.resize(64), queue_.reserve(1'024);  // more than a step needs, or a later one would allocate
    for (Extent i = 0; i < std::max<Extent>(options.threads, 1); ++i) threads_.emplace_back([this] { work(); });
  }
  ~Disk() override {
    {
      std::unique_lock lock{mutex_};
      done_.wait(lock, [&] { return queue_.empty() && working_ == 0; });
      ending_ = true;
    }
    asked_.notify_all();
    for (std::thread& t : threads_) t.join();
    for (const Block& b : blocks_) munmap(b.begin, b.bytes);
  }

  void* allocate(Extent bytes, Extent) override {
    const Extent whole = std::max(round_up(bytes, page), page);
    Block block{nullptr, whole, end_};
    const auto spare = std::find_if(spare_.begin(), spare_.end(), [&](const Range& r) { return r.size() == whole; });
    if (spare != spare_.end()) {
      block.offset = spare->begin;
      file_.zero(spare->begin, whole);
    } else {
      file_.extend(end_, whole);
    }
    void* const name = mmap(nullptr, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (name == MAP_FAILED) fail<803>(whole, " bytes of addresses can't be had from the operating system");
    block.begin = static_cast<std::byte*>(name);
    if (spare != spare_.end()) {
      spare_.erase(spare);
    } else {
      end_ += whole;
    }
    blocks_.insert(std::find_if(blocks_.begin(), blocks_.end(), [&](const Block& b) { return b.begin > block.begin; }), block);
    return name;
  }
  void deallocate(void* memory, Extent) noexcept override {
    if (!memory) return;
    const auto block = std::find_if(blocks_.begin(), blocks_.end(), [&](const Block& b) { return b.begin == memory; });
    std::unique_lock lock{mutex_};
    for (Copy& c : copies_)
      if (c.used && block->begin <= c.begin && c.begin < block->begin + block->bytes) {
        done_.wait(lock, [&] { return !c.busy; });
        drop(c);
      }
    spare_.push_back({block->offset, block->offset + block->bytes});
    munmap(block->begin, block->bytes);
    blocks_.erase(block);
  }
  bool holds(const void* resting) const override { return find(resting) != nullptr; }

  void* open(void* resting, Extent bytes, Access access) override {
    auto* const begin = static_cast<std::byte*>(resting);
    std::unique_lock lock{mutex_};
    Copy* copy = around(begin, bytes);
    if (!copy) {
      leave_alone(lock, begin, bytes);
      while (!(copy = try_make(begin, bytes))) {
        throw_failure();
        const bool busy = std::any_of(copies_.begin(), copies_.end(), [](const Copy& c) { return c.busy; });
        if (!busy) {
          Extent held = 0;
          for (const Copy& c : copies_) held += c.used ? c.bytes : 0;
          fail<822>(bytes, " bytes that rest on the disk don't fit beside ", held, " that are open; the bound is ", pool_.bytes(), " bytes");
        }
        done_.wait(lock);
      }
      if (access != Access::write) ask(*copy, DiskEvent::What::read);
    }
    ++copy->opened;
    done_.wait(lock, [&] { return !copy->busy; });
    if (failed_) {
      if (--copy->opened == 0) drop(*copy);
      throw_failure();
    }
    tell(DiskEvent::What::opened, *copy);
    return copy->memory + (begin - copy->begin);
  }
  void close(void* resting, Extent bytes, Access access) noexcept override {
    const std::unique_lock lock{mutex_};
    Copy& copy = *around(static_cast<std::byte*>(resting), bytes);
    copy.changed |= access != Access::read;
    tell(DiskEvent::What::closed, copy);
    if (--copy.opened == 0 && std::exchange(copy.changed, false)) ask(copy, DiskEvent::What::write);
  }
  void ahead(void* resting, Extent bytes) override {
    auto* const begin = static_cast<std::byte*>(resting);
    const std::unique_lock lock{mutex_};
    if (std::any_of(copies_.begin(), copies_.end(), [&](const Copy& c) { return c.used && c.begin < begin + bytes && begin < c.begin + c.bytes; }))
      return;
    if (Copy* const copy = try_make(begin, bytes)) ask(*copy, DiskEvent::What::read);
  }
  void settle() override {
    std::unique_lock lock{mutex_};
    done_.wait(lock, [&] { return queue_.empty() && working_ == 0; });
    throw_failure();
  }

 private:
  struct Block {
    std::byte* begin;
    Extent bytes, offset;  // in the file
  };
  /// What of a block is in the pool.
  struct Copy {
    std::byte *begin = nullptr, *memory = nullptr;
    Extent bytes = 0, offset = 0, opened = 0, age = 0;
    bool used = false, busy = false, reads = false, changed = false;
    Extent room() const { return std::max(round_up(bytes, page), page); }
  };
  struct Failure {
    int number = 0;
    bool read = false;
    Extent offset = 0, bytes = 0, done = 0;
  };

  const Block* find(const void* at) const {
    const auto behind = std::upper_bound(blocks_.begin(), blocks_.end(), at, [](const void* a, const Block& b) { return a < b.begin; });
    return behind != blocks_.begin() && at < (behind - 1)->begin + (behind - 1)->bytes ? &*(behind - 1) : nullptr;
  }
  Copy* around(const std::byte* begin, Extent bytes) {
    for (Copy& c : copies_)
      if (c.used && c.begin <= begin && begin + bytes <= c.begin + c.bytes) return &c;
    return nullptr;
  }
  /// No other copy holds some of these bytes from here on.
  void leave_alone(std::unique_lock<std::mutex>& lock, const std::byte* begin, Extent bytes) {
    for (Copy& c : copies_) {
      if (!c.used || begin + bytes <= c.begin || c.begin + c.bytes <= begin) continue;
      if (c.opened > 0) fail<822>(bytes, " bytes that rest on the disk are opened while ", c.bytes, " among them are open");
      done_.wait(lock, [&] { return !c.busy; });
      drop(c);
    }
  }
  void drop(Copy& c) { pool_.deallocate(c.memory, c.room()), c = {}; }
  /// Room in the pool, where need be that of copies that nobody uses, the oldest first.
  Copy* try_make(std::byte* begin, Extent bytes) {
    const Extent room = std::max(round_up(bytes, page), page);
    void* memory = nullptr;
    while (!(memory = pool_.try_allocate(room, page))) {
      Copy* oldest = nullptr;
      for (Copy& c : copies_)
        if (c.used && c.opened == 0 && !c.busy && (!oldest || c.age < oldest->age)) oldest = &c;
      if (!oldest) return nullptr;
      drop(*oldest);
    }
    auto free = std::find_if(copies_.begin(), copies_.end(), [](const Copy& c) { return !c.used; });
    if (free == copies_.end()) free = copies_.insert(free, Copy{});
    const Block& block = *find(begin);
    *free = {.begin = begin,
             .memory = static_cast<std::byte*>(memory),
             .bytes = bytes,
             .offset = block.offset + Extent(begin - block.begin),
             .used = true};
    free->age = ++clock_;
    return &*free;
  }
  void ask(Copy& c, DiskEvent::What what) {
    c.busy = true, c.reads = what == DiskEvent::What::read, c.age = ++clock_;
    tell(what, c);
    queue_.push_back(&c);
    asked_.notify_one();
  }
  void tell(DiskEvent::What what, const Copy& c) const {
    if (observer_) observer_({what, c.begin, c.bytes});
  }
  void throw_failure() {
    if (!failed_) return;
    failed_ = false;
    const auto& [number, read, offset, bytes, done] = failure_;
    if (number == 0) fail<823>("the file ", file_.path(), " was cut off: of ", bytes, " bytes at ", offset, " it holds ", done);
    fail<824>(bytes, " bytes at ", offset, " of the file ", file_.path(), " can't be ", read ? "read" : "written", ", ", done,
              " were: ", std::strerror(number));
  }

  void work() {
    std::unique_lock lock{mutex_};
    while (true) {
      asked_.wait(lock, [&] { return ending_ || !queue_.empty(); });
      if (queue_.empty()) return;
      Copy& c = *queue_.front();
      queue_.erase(queue_.begin()), ++working_;
      lock.unlock();
      Extent done = 0;
      const int error = c.reads ? file_.read(c.memory, c.bytes, c.offset, done) : file_.write(c.memory, c.bytes, c.offset, done);
      lock.lock();
      if (error != 0 || done < c.bytes) failed_ = true, failure_ = {error, c.reads, c.offset, c.bytes, done};
      c.busy = false, --working_;
      if (failed_ && c.reads && c.opened == 0) drop(c);  // nobody may take it for what was read
      done_.notify_all();
    }
  }

  std::function<void(const DiskEvent&)> observer_;
  RestFile file_;
  BoundedMemory pool_;
  std::vector<Block> blocks_{};  // by address
  std::vector<Range> spare_{};   // of the file
  Extent end_ = 0, clock_ = 0, working_ = 0;
  std::deque<Copy> copies_{};  // their addresses stay
  std::vector<Copy*> queue_{};
  bool ending_ = false, failed_ = false;
  Failure failure_{};
  std::mutex mutex_{};
  std::condition_variable asked_{}, done_{};
  std::vector<std::thread> threads_{};
};

}  // namespace

std::unique_ptr<Offloaded> offloaded_to_disk(const DiskOptions& options) { return std::make_unique<Disk>(options); }

}  // namespace dsx
