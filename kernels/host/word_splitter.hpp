// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Cuts text into words by a regular expression (PCRE2, compiled to machine code where it can be).
///
///     const dsx::WordSplitter splitter{dsx::gpt2_pattern, true};
///     dsx::WordSplitter::Scratch scratch;                       // one a thread
///     splitter.split("Hello world", scratch, [](std::string_view word) { ... });   // "Hello", " world"
#pragma once

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <dsx/data/text.hpp>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace dsx {

class WordSplitter {
  struct Free {
    void operator()(pcre2_code* p) const { pcre2_code_free(p); }
    void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
    void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
    void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
  };

 public:
  struct Scratch {
    Scratch()
        : data{pcre2_match_data_create(1, nullptr)},
          context{pcre2_match_context_create(nullptr)},
          stack{pcre2_jit_stack_create(32_KiB, 4_MiB, nullptr)} {
      pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
    }
    std::unique_ptr<pcre2_match_data, Free> data;
    std::unique_ptr<pcre2_match_context, Free> context;
    std::unique_ptr<pcre2_jit_stack, Free> stack;
  };

  /// What lies between two matches is a word too, or is dropped. dsx-E645 for a pattern that PCRE2 refuses.
  WordSplitter(std::string_view pattern, bool keep_between) : pattern_{pattern}, keep_between_{keep_between} {
    const std::string exact = with_white_space(pattern);
    constexpr std::uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C;
    int error = 0;
    PCRE2_SIZE at = 0;
    code_.reset(pcre2_compile(PCRE2_SPTR(exact.data()), exact.size(), options, &error, &at, nullptr));
    if (!code_) fail<645>("the split pattern \"", pattern_, "\" isn't one, near its byte ", at, ": ", message(error));
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // refused on some systems; then patterns are interpreted
  }

  /// Calls word(part) for each word of a text that must be UTF-8.
  template <class F>
  void split(std::string_view text, Scratch& scratch, F&& word) const {
    const PCRE2_SIZE* const ends = pcre2_get_ovector_pointer(scratch.data.get());
    // A run of white space may be walked back once, byte by byte; what takes much longer never ends.
    pcre2_set_match_limit(scratch.context.get(), std::uint32_t(std::min<Extent>(10'000'000 + 16 * text.size(), 0xFFFFFFFF)));
    for (Extent at = 0; at < text.size();) {
      const auto match = [&](std::uint32_t options) {
        return pcre2_match(code_.get(), PCRE2_SPTR(text.data()), text.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY | options, scratch.data.get(),
                           scratch.context.get());
      };
      int found = match(0);
      if (found == PCRE2_ERROR_JIT_STACKLIMIT) found = match(PCRE2_NO_JIT);
      const bool none = found == PCRE2_ERROR_NOMATCH;
      if (found < 0 && !none)
        fail<645>("the split pattern \"", pattern_, "\" gives up ", at, " bytes into a text of ", text.size(), ": ", message(found));
      const Extent begin = none ? text.size() : ends[0], end = none ? text.size() : ends[1];
      if (!none && (begin < at || end <= begin))
        fail<645>("the split pattern \"", pattern_, "\" gives a match from byte ", begin, " to ", end, ", after byte ", at);
      if (begin > at && keep_between_) word(text.substr(at, begin - at));
      if (end > begin) word(text.substr(begin, end - begin));
      at = end;
    }
  }

 private:
  static std::string message(int error) {
    PCRE2_UCHAR text[160];
    pcre2_get_error_message(error, text, sizeof text);
    return reinterpret_cast<const char*>(text);
  }

  /// PCRE2's \s has U+180E, which Unicode no longer counts as white space, nor do the tokenizers that files were made with.
  static std::string with_white_space(std::string_view pattern) {
    constexpr std::string_view spaces = R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
    std::string text;
    bool in_class = false;
    for (Extent i = 0; i < pattern.size(); ++i) {
      const std::string_view two = pattern.substr(i, 2);
      if (two == "\\s") {
        text += in_class ? std::string{spaces} : concat('[', spaces, ']'), ++i;
      } else if (two == "\\S" && !in_class) {
        text += concat("[^", spaces, ']'), ++i;
      } else if (two[0] == '\\') {
        text += two, ++i;
      } else if (two[0] == '[' && !in_class) {
        text += '[', in_class = true;
        if (pattern.substr(i + 1, 1) == "^") text += '^', ++i;
        if (pattern.substr(i + 1, 1) == "]") text += ']', ++i;
      } else if (two == "[:" && pattern.find(":]", i) != pattern.npos) {
        const Extent end = pattern.find(":]", i) + 2;
        text += pattern.substr(i, end - i), i = end - 1;
      } else {
        in_class = in_class && two[0] != ']';
        text += two[0];
      }
    }
    return text;
  }

  std::string pattern_;
  bool keep_between_;
  std::unique_ptr<pcre2_code, Free> code_;
};

}  // namespace dsx
