// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Runs a libFuzzer target without libFuzzer: its corpus, then seeded mutations of it. Any compiler, same inputs each time.
///
///     test_fuzz_json tests/fuzz/corpus/json          // each file, then 4,000 mutations
///     test_fuzz_json crash-0badc0de                  // one file: how a finding is looked at again
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes read(const std::filesystem::path& path) {
  std::ifstream file{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{file}, std::istreambuf_iterator<char>{}};
}

class Mutator {
 public:
  explicit Mutator(const std::vector<Bytes>& seeds) : seeds_{seeds} {}

  Bytes next() {
    Bytes bytes = seeds_[below(seeds_.size())];
    for (std::size_t edits = 1 + below(4); edits > 0; --edits) edit(bytes);
    return bytes;
  }

 private:
  std::size_t below(std::size_t n) { return n == 0 ? 0 : std::size_t(random_()) % n; }

  void edit(Bytes& bytes) {
    static constexpr std::uint8_t telling[] = {0, 1, 0x7f, 0x80, 0xc0, 0xff, '"', '\\', '{', '[', ']', '}', '0', '9', '-', ' '};
    const std::size_t at = below(bytes.size() + 1);
    const auto place = bytes.begin() + std::ptrdiff_t(at);
    switch (below(6)) {
      case 0:
        if (at < bytes.size()) bytes[at] ^= std::uint8_t(1U << below(8));
        break;
      case 1:
        if (at < bytes.size()) bytes[at] = telling[below(std::size(telling))];
        break;
      case 2:
        bytes.insert(place, telling[below(std::size(telling))]);
        break;
      case 3:  // cut the end off, as a full disk does
        bytes.resize(at);
        break;
      case 4: {
        const std::size_t count = std::min(below(16), bytes.size() - at);
        bytes.erase(place, place + std::ptrdiff_t(count));
        break;
      }
      default: {  // a piece of another seed
        const Bytes& other = seeds_[below(seeds_.size())];
        const std::size_t from = below(other.size()), count = std::min(below(64), other.size() - from);
        bytes.insert(place, other.begin() + std::ptrdiff_t(from), other.begin() + std::ptrdiff_t(from + count));
      }
    }
  }

  const std::vector<Bytes>& seeds_;
  std::mt19937_64 random_{20'240'229};
};

void write_last(const Bytes& bytes, const char* path) {
  std::ofstream file{path, std::ios::binary | std::ios::trunc};
  file.write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<Bytes> seeds{{}};
  bool replay = false;
  for (int i = 1; i < argc; ++i) {
    const std::filesystem::path path{argv[i]};
    if (std::filesystem::is_directory(path)) {
      std::vector<std::filesystem::path> files;
      for (const auto& entry : std::filesystem::directory_iterator{path})
        if (entry.is_regular_file()) files.push_back(entry.path());
      std::sort(files.begin(), files.end());
      for (const auto& file : files) seeds.push_back(read(file));
    } else if (std::filesystem::is_regular_file(path)) {
      seeds.push_back(read(path));
      replay = true;
    } else {
      std::fprintf(stderr, "%s: no such file or folder\n", argv[i]);
      return 1;
    }
  }
  for (const Bytes& seed : seeds) LLVMFuzzerTestOneInput(seed.data(), seed.size());
  const int mutations = replay ? 0 : 4'000;
  Mutator mutator{seeds};
  const std::string last = std::string{argv[0]} + ".last_input";
  // Kept where a crash leaves it behind; an own small write for each input costs less than the parsers.
  for (int i = 0; i < mutations; ++i) {
    const Bytes bytes = mutator.next();
    write_last(bytes, last.c_str());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  if (!replay) std::filesystem::remove(last);
  std::printf("%zu seeds and %d mutations of them went through\n", seeds.size() - 1, mutations);
  return 0;
}
