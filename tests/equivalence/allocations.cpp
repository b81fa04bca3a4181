// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// BYTES: a steady step allocates nothing. malloc and its relatives, operator new above them and mmap are this program's own and
/// counted on all threads over steps 3 to 5. What oneDNN takes inside a call of its own (DSX_MATMUL=onednn) is held to less: small blocks,
/// given back before the call returns.
// labels: bytes
// cores: 2
#include "support/runs.hpp"

#include <doctest/doctest.h>

#include <dlfcn.h>
#include <execinfo.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <atomic>
#include <cerrno>

// A sanitizer brings its own malloc.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void __libc_free(void*);
}

namespace {

std::atomic<bool> counting = false;
std::atomic<long> counted = 0;
std::array<std::array<void*, 16>, 8> traces;  // of the first few
std::array<int, 8> depths;
thread_local bool inside = false;  // what backtrace itself asks for doesn't count

std::atomic<long> executed = 0, in_onednn = 0, too_large = 0, kept = 0;
thread_local bool in_execute = false;
thread_local long blocks_in_execute = 0;  // taken and not given back yet
constexpr std::size_t small = 4096;

void count(std::size_t bytes) {
  if (!counting.load(std::memory_order_relaxed) || inside) return;
  if (in_execute) {
    ++in_onednn, ++blocks_in_execute, too_large += bytes > small;
    return;
  }
  inside = true;
  if (const long i = counted++; i < long(traces.size())) depths[std::size_t(i)] = backtrace(traces[std::size_t(i)].data(), 16);
  inside = false;
}

}  // namespace

extern "C" {
void* malloc(std::size_t n) { return count(n), __libc_malloc(n); }
void* calloc(std::size_t n, std::size_t size) { return count(n * size), __libc_calloc(n, size); }
void* realloc(void* p, std::size_t n) { return count(n), __libc_realloc(p, n); }
void* memalign(std::size_t align, std::size_t n) { return count(n), __libc_memalign(align, n); }
void* aligned_alloc(std::size_t align, std::size_t n) { return count(n), __libc_memalign(align, n); }
int posix_memalign(void** p, std::size_t align, std::size_t n) {
  count(n);
  *p = __libc_memalign(align, n);
  return *p ? 0 : ENOMEM;
}
void free(void* p) {
  if (p && in_execute) --blocks_in_execute;
  __libc_free(p);
}
/// oneDNN's own, with what it allocates counted apart.
int dnnl_primitive_execute(const void* primitive, void* stream, int count_of_arguments, const void* arguments) {
  using Execute = int (*)(const void*, void*, int, const void*);
  static const Execute execute = reinterpret_cast<Execute>(dlsym(RTLD_NEXT, "dnnl_primitive_execute"));
  const bool counts = counting;
  in_execute = counts, blocks_in_execute = 0;
  const int status = execute(primitive, stream, count_of_arguments, arguments);
  in_execute = false;
  if (counts) ++executed, kept += blocks_in_execute;
  return status;
}
void* mmap(void* at, std::size_t n, int protection, int flags, int file, off_t offset) {
  count(n);
  return reinterpret_cast<void*>(syscall(SYS_mmap, at, n, protection, flags, file, offset));
}
}

using namespace toy;

namespace {

bool by_onednn(Element values) { return kernels::matmul_library(values) == kernels::MatmulLibrary::onednn; }

/// Allocations of all threads in steps 3 to 5 of a trainer.
template <class Model, class Feed>
long in_steady_steps(Degrees degrees, const Model& model, const AnyRecipe& recipe, AnyOptimizer optimizer, TrainerOptions options, const Feed& feed) {
  counted = 0, executed = 0, in_onednn = 0, too_large = 0, kept = 0;
  launch_threads(degrees.ranks(), [&](Session& session) {
    const Mesh mesh{session, degrees};
    Weights weights{mesh, model, recipe};
    Trainer trainer{weights, optimizer, TokenLoss{.chunk = 100}, options};
    std::vector<std::vector<MicroBatch>> batches;
    // oneDNN compiles a primitive for each number of rows that it hasn't met, which allocates: it meets the numbers of step 2 again.
    const Extent last = by_onednn(weights.elements().value) ? 1 : 4;
    for (Extent step = 0; step < 5; ++step) batches.push_back(feed(std::min(step, last), mesh.coordinate(Axes::data)));
    for (Extent step = 0; step < 5; ++step) {
      mesh.world().barrier();
      if (step == 2 && session.is_root()) counting = true;
      mesh.world().barrier();
      trainer.step(batches[step]);
    }
    mesh.world().barrier();
    if (session.is_root()) counting = false;
    mesh.world().barrier();
  });
  const long found = counted;
  for (long i = 0; i < std::min(found, long(traces.size())); ++i) {
    std::printf("allocation %ld:\n", i), std::fflush(stdout);
    backtrace_symbols_fd(traces[std::size_t(i)].data(), depths[std::size_t(i)], 1);
  }
  if (executed) std::printf("oneDNN: %ld calls took %ld blocks\n", executed.load(), in_onednn.load());
  CHECK(too_large == 0);
  CHECK(kept == 0);
  return found;
}

long of_cell(const Cell& c) { return in_steady_steps(c.degrees, make_model(), recipe_of(c), optimizer_of(c.rule), options_of(c), c.feed()); }

}  // namespace

TEST_CASE("the counters see malloc, calloc, aligned_alloc, posix_memalign, mmap and operator new") {
  const auto counts = [](auto allocate) {
    counted = 0, counting = true;
    allocate();
    counting = false;
    return counted.load();
  };
  void* volatile p = nullptr;
  CHECK(counts([] {}) == 0);
  CHECK(counts([&] { p = std::malloc(100); }) == 1);
  std::free(p);
  CHECK(counts([&] { p = std::calloc(100, 1); }) == 1);
  std::free(p);
  CHECK(counts([&] { p = std::aligned_alloc(64, 128); }) == 1);
  std::free(p);
  CHECK(counts([&] {
          void* q = nullptr;
          p = posix_memalign(&q, 64, 128) == 0 ? q : nullptr;
        }) == 1);
  std::free(p);
  CHECK(counts([&] { p = ::operator new(100); }) == 1);
  ::operator delete(p);
  CHECK(counts([&] { p = ::operator new(100, std::align_val_t{64}); }) == 1);
  ::operator delete(p, std::align_val_t{64});
  CHECK(counts([&] { p = mmap(nullptr, 4'096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }) == 1);
  munmap(p, 4'096);
}

TEST_CASE("steady steps of thread ranks allocate nothing") {
  const Elements single{}, mixed = Bf16{}.elements();
  for (const Cell& c :
       {Cell{}, Cell{Sharding::replicate, {.data = 2}, Schedule::single, 2, false, Rule::sgd, single},
        Cell{Sharding::zero_3,
             {.data = 2, .tensor = 2, .pipe = 2, .token_split = true},
             Schedule::one_forward_one_backward,
             2,
             false,
             Rule::adamw,
             single},
        Cell{Sharding::zero_2, {.data = 2, .tensor = 2, .pipe = 2}, Schedule::gpipe, 2, true, Rule::muon, mixed},
        Cell{Sharding::hpz, {.data = 4, .inner = 2}, Schedule::single, 2, true, Rule::adamw, mixed},
        Cell{Sharding::mics, {.data = 4, .inner = 2, .tensor = 2}, Schedule::single, 1, false, Rule::muon},
        Cell{Sharding::mics, {.data = 4, .inner = 2, .pipe = 2}, Schedule::gpipe, 2, false, Rule::adamw, mixed, {}, {}, true},
        Cell{.degrees = {.data = 3, .tensor = 2, .token_split = true},
             .micro_batches = 3,
             .rests = {Tier::device, Tier::host, Tier::disk, Tier::device},
             .reproducible = true},
        Cell{Sharding::zero_2,
             {.data = 2, .pipe = 2},
             Schedule::one_forward_one_backward,
             2,
             true,
             Rule::adamw,
             mixed,
             {Tier::host, Tier::host, Tier::host, Tier::host}},
        Cell{Sharding::zero_3, {.data = 2}, Schedule::single, 2, false, Rule::muon, single, {Tier::host, Tier::disk, Tier::disk, Tier::disk}}})
    CHECK_MESSAGE(of_cell(c) == 0, name_of(c));
}

TEST_CASE("steady steps of 1-bit Adam allocate nothing") {
  const Rule rule = Rule::one_bit_adam;  // steps 1 and 2 are exact
  for (Cell c : {Cell{Sharding::replicate, {.data = 4}, Schedule::single, 2, false, rule},
                 Cell{Sharding::mics, {.data = 4, .inner = 2, .tensor = 2}, Schedule::single, 1, false, rule},
                 Cell{Sharding::replicate, {.data = 2, .pipe = 2}, Schedule::one_forward_one_backward, 2, false, rule}})
    for (const Tier tier : {Tier::device, Tier::host, Tier::disk}) {
      c.rests[Extent(Kind::state)] = tier;
      CHECK_MESSAGE(of_cell(c) == 0, name_of(c));
    }
}

TEST_CASE("steady steps that pack weights, gradients and state allocate nothing") {
  const Codecs codecs{&block_int8<16>, &block_int4<32>, &block_int8<64, Codes::asymmetric>, true};
  const Elements single{}, mixed = Bf16{}.elements();
  for (Cell c :
       {Cell{Sharding::replicate, {.data = 2}, Schedule::single, 2, false, Rule::sgd, single},
        Cell{Sharding::zero_1, {.data = 2, .pipe = 2}, Schedule::one_forward_one_backward, 2, false, Rule::adamw, mixed},
        Cell{Sharding::hpz, {.data = 4, .inner = 2}, Schedule::single, 2, true, Rule::adamw, mixed},
        Cell{Sharding::mics, {.data = 4, .inner = 2}, Schedule::single, 1, false, Rule::muon, single},
        Cell{Sharding::zero_3, {.data = 2}, Schedule::single, 2, false, Rule::adamw, single, {Tier::host, Tier::disk, Tier::disk, Tier::disk}}}) {
    c.codecs = codecs;
    CHECK_MESSAGE(of_cell(c) == 0, name_of(c));
  }
}

TEST_CASE("steady steps that play operations again allocate nothing") {
  const Cell c{Sharding::zero_3, {.data = 2, .tensor = 2, .pipe = 2, .token_split = true}, Schedule::one_forward_one_backward, 2, false, Rule::adamw};
  AnyPolicies policies{};
  std::get<AnySharding>(policies) = ZeRO<3>{}, std::get<AnySchedule>(policies) = OneForwardOneBackward{};
  std::get<AnyRecompute>(policies) = RecomputeOperations{};
  CHECK(in_steady_steps(c.degrees, make_model(), policies, optimizer_of(c.rule), options_of(c), c.feed()) == 0);
}

TEST_CASE("steady steps of experts on several ranks allocate nothing") {
  const Experts experts{4, Dropless<2>{.width = width, .experts = 4, .balance = {.weight = 0.1, .over_ranks = true}}, Mlp{width, hidden}};
  const Sequential model{Embedding{vocabulary, length, width}, Residual{LayerNorm{width}, experts}, Residual{LayerNorm{width}, experts},
                         Chain{LayerNorm{width}, Head{vocabulary, width}}};
  for (const Cell& c : {Cell{Sharding::zero_3, {.data = 4, .expert = 2}, Schedule::single, 2, false, Rule::adamw},
                        Cell{Sharding::zero_1, {.data = 4, .expert = 4}, Schedule::single, 2, true, Rule::muon},
                        Cell{Sharding::zero_2, {.data = 2, .pipe = 2, .expert = 2}, Schedule::one_forward_one_backward, 2, false, Rule::sgd}})
    CHECK_MESSAGE(in_steady_steps(c.degrees, model, recipe_of(c), optimizer_of(c.rule), options_of(c), c.feed()) == 0, name_of(c));
}

TEST_CASE("steady steps whose kernels use several threads allocate nothing") {
  const auto feed = [](Extent step, Extent) {
    std::vector<MicroBatch> batches(2);
    for (Extent m = 0; m < 2; ++m)
      for (Extent s = 0; s < 4; ++s) {
        std::vector<int> ids(64 - 7 * s * (step % 2)), targets(ids.size());
        for (Extent t = 0; t < ids.size(); ++t) ids[t] = int((t * t + s + step) % 500), targets[t] = int((t * t + 2 * t + s + step) % 500);
        batches[m].add(ids, targets, (4 * m + s) * 64);
      }
    return batches;
  };
  const auto model = make_gpt2({.vocabulary = 500, .positions = 64, .width = 64, .heads = 4, .layers = 1, .dropout = 0.1});
  for (const Elements elements : {Elements{}, Bf16{}.elements()})
    for (const Rule rule : {Rule::adamw, Rule::muon}) {
      const Cell c{.recompute = rule == Rule::muon, .rule = rule, .elements = elements};
      CHECK_MESSAGE(in_steady_steps({}, model, recipe_of(c), optimizer_of(rule), {.micro_batches = 2, .rows = 256, .clip = 0.1}, feed) == 0,
                    name_of(c));
      CHECK((executed > 0) == by_onednn(elements.value));
    }
}

#else
TEST_CASE("allocations are counted in builds without sanitizers") { CHECK(true); }
#endif
