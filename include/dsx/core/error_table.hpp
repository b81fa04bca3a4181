// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Every numbered error of dsx in one table. A number is never used twice; docs/errors.md explains each.
///
/// E1xx recipe, residency, schedule; E2xx distributions; E3xx shapes, mesh, batches; E4xx pass, tape, bundles;
/// E5xx communicators; E6xx files and formats; E7xx command lines; E8xx devices, disk.
#pragma once

namespace dsx {

struct ErrorEntry {
  int number;
  const char* title;
};

inline constexpr ErrorEntry error_table[] = {
    // clang-format off
    {101, "no such ZeRO stage"},
    {102, "two policies fill one slot of a recipe"},
    {103, "a residency whose axes don't nest"},
    {104, "weights at rest, gradients and optimizer state are cut over axes that don't nest"},
    {105, "an incorrect pipeline schedule"},
    {106, "a type that is no policy stands in a recipe"},
    {107, "policies that exclude each other"},
    {108, "no policy or recipe has this name"},
    {109, "a policy asks for what nothing here provides"},
    {116, "an interleaved schedule of one chunk a stage"},
    {201, "a term of a sum (Partial) where a complete value is asked for"},
    {202, "a complete value where a term of a sum (Partial) is asked for"},
    {203, "a column-parallel layer was not given fan_out(value)"},
    {204, "a value lies otherwise over the tensor axis than the one asked for"},
    {205, "a term of a sum (Partial) plus a complete value"},
    {206, "addends that lie differently over the tensor axis"},
    {207, "a nonlinear function of a term of a sum (Partial)"},
    {208, "a bias added to a term of a sum (Partial)"},
    {209, "a norm of something else than whole rows"},
    {210, "a matrix product of a value that lies this way over the tensor axis"},
    {211, "a model that ends in a Repeat"},
    {301, "a shape that an operation can't take"},
    {302, "a value and a weight whose inner extents differ"},
    {303, "fewer units than pipeline stages"},
    {304, "a batch that the trainer wasn't planned for"},
    {305, "a sequence longer than the table of positions"},
    {306, "a token outside the vocabulary"},
    {307, "heads that don't divide the width"},
    {308, "a batch that the ranks can't share"},
    {310, "degrees of parallelism whose product isn't the number of ranks"},
    {311, "inner or expert degrees that don't divide the data degree"},
    {312, "an axis given twice, unknown or of size 0"},
    {313, "a parameter that its axis can't cut"},
    {401, "the run asks for more memory than its plan holds"},
    {402, "a value was computed that no loss depends on"},
    {403, "two uses of one parameter leave its gradient partial over different axes"},
    {404, "the uses of a tied parameter reduce its gradient over different axes"},
    {405, "an element type that an operation can't compute with"},
    {406, "no parameter has this path"},
    {407, "a parameter is assigned a wrong number of elements"},
    {408, "recording a pass that attends to a cache"},
    {409, "a loss or gradient that isn't finite"},
    {410, "a second trainer on weights that have one"},
    {411, "two parameters of one path"},
    {412, "a parameter or buffer that parts() doesn't name"},
    {501, "another rank failed"},
    {502, "ranks call different collectives"},
    {503, "a message of another size or element than its receiver expects"},
    {504, "a rank waited longer than the time limit"},
    {505, "more kinds of call than a rank's traffic is counted for"},
    {506, "all ranks wait for each other"},
    {507, "buffers that a collective can't take"},
    {508, "an element type that a collective can't combine"},
    {509, "a peer or root that can't be"},
    {510, "a group that its ranks can't form"},
    {511, "a transport that this build of dsx doesn't have"},
    {512, "a failure inside MPI"},
    {601, "a file or folder that can't be read"},
    {602, "a file or folder that can't be written"},
    {603, "two writers of one file or folder"},
    {604, "a write after the commit"},
    {611, "a text that isn't JSON"},
    {612, "a JSON text that isn't UTF-8"},
    {613, "a key that occurs twice in a JSON object"},
    {614, "JSON nested too deeply"},
    {615, "a JSON value of another kind than asked for"},
    {616, "a JSON object or array without the member asked for"},
    {620, "a safetensors file that ends before its header says"},
    {621, "a safetensors header that doesn't describe tensors"},
    {622, "safetensors whose bytes overlap or leave holes"},
    {623, "a safetensors tensor whose shape and bytes differ"},
    {624, "an element type of a safetensors file that dsx doesn't hold"},
    {625, "no tensor has this name"},
    {626, "a tensor read into or written from a buffer of another shape or element"},
    {627, "tensors written twice, out of order or not in full"},
    {628, "shards that don't fit their index"},
    {629, "a table of weight names that doesn't fit the file"},
    {630, "a stored tied weight that differs from its original"},
    {635, "a configuration of another model"},
    {636, "a configuration without a needed number, or with an absurd one"},
    {637, "a configuration that asks for what the model doesn't compute"},
    {641, "a file of merges whose lines aren't pairs"},
    {642, "a tokenizer of a kind that dsx doesn't read"},
    {643, "a vocabulary whose ids and tokens don't fit together"},
    {644, "a merge of tokens that the vocabulary lacks"},
    {645, "a pattern that can't cut text into words"},
    {646, "a vocabulary too small for its bytes and special tokens"},
    {647, "a token file that was cut off or damaged"},
    {648, "a file that is no token file"},
    {649, "a token file made with another vocabulary or tokenizer"},
    {650, "token ids outside the vocabulary or the file"},
    {651, "fewer tokens than one window"},
    {652, "no text or no token to work on"},
    {670, "a checkpoint that isn't one, or of another version"},
    {671, "a checkpoint of another model or optimizer"},
    {701, "processes started by torchrun"},
    {702, "thread ranks asked for inside a launcher's processes"},
    {703, "a launcher's world size that isn't the communicator's"},
    {704, "a launcher's variable that is no number"},
    {705, "tasks started by srun without PMIx"},
    {710, "a run resumed on other data"},
    {711, "a context longer than the model's positions"},
    {712, "data with a larger vocabulary than the model"},
    {715, "a token file among texts"},
    {720, "a prompt and new tokens that are more than the model's positions"},
    {721, "more sequences than a generator was planned for"},
    {722, "a prompt without tokens"},
    {723, "a way of choosing tokens that leaves none"},
    {724, "a generator planned for another vocabulary"},
    {801, "a GPU is asked for in a build without CUDA"},
    {802, "a call of the CUDA runtime failed"},
    {803, "a block of memory that cannot be had"},
    // clang-format on
};

constexpr bool is_known_error(int number) {
  for (const ErrorEntry& e : error_table)
    if (e.number == number) return true;
  return false;
}

}  // namespace dsx
