// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// dsx's half of the comparison gpt2_step: a GPT-2 124M that trains when it is asked to, one JSON line an answer.
///
///     gpt2_step write DIR                                   # random weights as Hugging Face files
///     gpt2_step train DIR TOKENS BATCH LENGTH PRECISION THREADS   # then a line a step on stdin; the answer has its loss and seconds
///     gpt2_step products - - BATCH LENGTH PRECISION THREADS       # then a line on stdin: the products of a step, and nothing else
#include <dsx/kernels/threads.hpp>
#include <dsx/optim/adamw.hpp>
#include <dsx/recipes.hpp>
#include <dsx/train/gpt2_files.hpp>
#include <dsx/train/trainer.hpp>
#include <dsx/version.hpp>

#include <sys/resource.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

dsx::Extent peak_kib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return dsx::Extent(usage.ru_maxrss);
}

/// Seconds by operation and direction.
struct Profile : dsx::Observer {
  std::map<std::string, double> seconds{};
  double began = 0;
  void before(const char*, dsx::Unit, Phase, const dsx::Cost&) override { began = now(); }
  void after(const char* operation, dsx::Unit, Phase phase, dsx::Pass&) override {
    seconds[dsx::concat(operation, phase == Phase::forward ? " forward" : " backward")] += now() - began;
  }
};

/// The token loss, which is the last of forward; it also puts the profile where the operations are seen.
struct TimedLoss {
  Profile* profile;
  double* forward_ended;
  dsx::TokenLoss loss{};
  dsx::Counts counts(const dsx::Batch& batch) const { return loss.counts(batch); }
  void operator()(const dsx::Logits& logits, const dsx::Counts& counts) const {
    dsx::Pass& pass = *logits.hidden_RC.pass;
    if (!pass.dry()) pass.observer = profile;
    loss(logits, counts);
    *forward_ended = now();
  }
};

struct Task {
  std::string folder, tokens;
  dsx::Extent batch, length;
  bool bf16;
  dsx::Extent rows() const { return batch * length; }
};

#ifdef __clang__
constexpr const char* compiler = __VERSION__;
#else
constexpr const char* compiler = "g++ " __VERSION__;
#endif

void answer_ready() {
  std::string products;
  for (const dsx::Element element : {dsx::Element::f32, dsx::Element::bf16})
    products += dsx::concat(products.empty() ? "" : ", ", name_of(element), " by ", name_of(dsx::kernels::matmul_library(element)));
  std::printf("{\"ready\": true, \"version\": \"%s\", \"compiler\": \"%s\", \"products\": \"%s\", \"base_kib\": %zu}\n", dsx::version, compiler,
              products.c_str(), peak_kib());
  std::fflush(stdout);
}

void write(const std::string& folder) {
  dsx::Session session{dsx::self_transport()};
  const dsx::Mesh mesh{session, {}};
  dsx::Weights weights{mesh, dsx::make_gpt2({}), dsx::Recipe{}, 1};
  dsx::export_gpt2(folder, weights, dsx::config_of({}));
  answer_ready();
}

/// The tokens as 32-bit integers, length + 1 a sequence; a step takes the next `batch` sequences, from the beginning again at the end.
std::vector<int> read_tokens(const std::string& file) {
  std::ifstream in{file, std::ios::binary | std::ios::ate};
  std::vector<int> tokens(std::size_t(in.tellg()) / sizeof(int));
  in.seekg(0);
  in.read(reinterpret_cast<char*>(tokens.data()), std::streamsize(tokens.size() * sizeof(int)));
  return tokens;
}

void train(const Task& task) {
  const std::vector<int> tokens = read_tokens(task.tokens);
  dsx::Session session{dsx::self_transport()};
  const dsx::Mesh mesh{session, {}};
  const dsx::GptConfig config = dsx::config_for(task.folder, task.length, 50257);
  dsx::Weights weights{mesh, dsx::make_gpt2(dsx::shape_of(config)), dsx::choose_recipe(task.bf16 ? "bf16" : "fp32"), 1};
  dsx::load_gpt2(task.folder, weights);
  Profile profile;
  double forward_ended = 0;
  dsx::Trainer trainer{weights, dsx::AdamW{.rate = 1e-3}, TimedLoss{&profile, &forward_ended}, {.rows = task.rows()}};
  answer_ready();
  std::vector<dsx::MicroBatch> batches(1);
  for (std::string line; std::getline(std::cin, line);) {
    const dsx::Extent sequence = task.length + 1, steps = tokens.size() / (task.batch * sequence);
    batches[0].clear();
    for (dsx::Extent b = 0; b < task.batch; ++b) {
      const int* const ids = tokens.data() + ((trainer.steps() % steps) * task.batch + b) * sequence;
      batches[0].add({ids, task.length}, {ids + 1, task.length}, b * task.length);
    }
    profile.seconds.clear();
    const double began = now();
    trainer.accumulate(batches);
    const double accumulated = now();
    const dsx::Verdict verdict = trainer.verdict();
    trainer.commit(verdict);
    const double ended = now();
    std::string operations;
    for (const auto& [operation, seconds] : profile.seconds)
      operations += dsx::concat(operations.empty() ? "" : ", ", '"', operation, "\": ", seconds);
    std::printf(
        "{\"loss\": %.9g, \"step\": %.6f, \"forward\": %.6f, \"backward\": %.6f, \"optimizer\": %.6f, \"peak_kib\": %zu, \"operations\": {%s}}\n",
        verdict.loss, ended - began, forward_ended - began, accumulated - forward_ended, ended - accumulated, peak_kib(), operations.c_str());
    std::fflush(stdout);
  }
}

/// A weight (in x out) of the model and how many of its kind there are; a step multiplies by it, and twice more for its gradients.
struct Product {
  dsx::Extent in, out, times;
  bool table = false;  // lies as out x in
};

/// Each product of a step as its operation calls it, on operands of its own.
void products(const Task& task) {
  using dsx::kernels::Matrix;
  const dsx::Gpt2Shape shape;
  const dsx::Extent width = shape.width, hidden = 4 * width;
  const Product of_step[] = {{width, 3 * width, shape.layers},
                             {width, width, shape.layers},
                             {width, hidden, shape.layers},
                             {hidden, width, shape.layers},
                             {width, shape.vocabulary, 1, true}};
  const dsx::Element narrow = task.bf16 ? dsx::Element::bf16 : dsx::Element::f32;
  const dsx::Stream stream{dsx::Place::cpu};
  dsx::Memory memory{dsx::Place::cpu, stream, false};
  const auto make = [&](dsx::Extent rows, dsx::Extent columns, dsx::Element element) {
    const dsx::View v = memory.keep(dsx::Category::scratch, {rows, columns}, element);
    dsx::dispatch(element, [&](auto zero) {
      for (dsx::Extent i = 0; i < v.size(); ++i) v.pointer<decltype(zero)>()[i] = decltype(zero)(float(i % 251) / 251 - 0.5F);
    });
    return v;
  };
  struct Call {
    Matrix a, b;
    dsx::View c;
  };
  std::vector<std::array<Call, 3>> calls;
  dsx::Extent needed = 0;
  for (const auto& [in, out, times, table] : of_step) {
    const dsx::View x = make(task.rows(), in, narrow), y = make(task.rows(), out, narrow);
    const dsx::View weight = table ? make(out, in, narrow) : make(in, out, narrow);
    const dsx::View gradient = make(weight.shape.rows, weight.shape.columns, dsx::Element::f32);
    calls.push_back({Call{{x}, {weight, table}, y}, Call{{y}, {weight, !table}, x}, Call{{table ? y : x, true}, {table ? x : y}, gradient}});
    for (const auto& [a, b, c] : calls.back()) needed = std::max(needed, dsx::kernels::matmul_scratch(a, b, c));
  }
  const dsx::View scratch = memory.keep(dsx::Category::scratch, {needed, 1}, dsx::Element::u8);
  answer_ready();
  for (std::string line; std::getline(std::cin, line);) {
    double seconds = 0, operations = 0;
    for (dsx::Extent i = 0; i < std::size(of_step); ++i) {
      const auto& [in, out, times, table] = of_step[i];
      const dsx::Extent turns = std::min<dsx::Extent>(times, 3);  // of twelve alike three are timed
      const double began = now();
      for (dsx::Extent turn = 0; turn < turns; ++turn)
        for (const auto& [a, b, c] : calls[i]) dsx::kernels::matmul(a, b, {c, false}, {}, scratch);
      seconds += (now() - began) * double(times) / double(turns);
      operations += 6 * double(task.rows() * in * out * times);
    }
    std::printf("{\"step\": %.6f, \"operations\": %.6g}\n", seconds, operations);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::string what = argc > 1 ? argv[1] : "";
    if (what == "write" && argc == 3) return write(argv[2]), 0;
    if ((what != "train" && what != "products") || argc != 8) {
      std::fprintf(stderr, "usage: gpt2_step write DIR | gpt2_step train|products DIR TOKENS BATCH LENGTH fp32|bf16 THREADS\n");
      return 1;
    }
    dsx::kernels::use_threads(std::stoul(argv[7]));
    const Task task{argv[2], argv[3], std::stoul(argv[4]), std::stoul(argv[5]), std::strcmp(argv[6], "bf16") == 0};
    what == "train" ? train(task) : products(task);
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "gpt2_step: %s\n", e.what());
    return 1;
  }
}
