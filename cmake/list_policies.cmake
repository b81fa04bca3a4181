# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
# Collects the lines `// dsx-policy: <slot> <name> <C++ spelling for a test cell>` that end policies' headers into one header for tests:
#
#   cmake -DINCLUDE=include -DOUTPUT=policies.hpp -P cmake/list_policies.cmake
#
# A slot is called as its struct in policy/*.hpp says; `router` and `optimizer` stand beside a recipe, in the model and the trainer. A name is
# what command lines call the policy. A router may use `width`.

file(GLOB concepts ${INCLUDE}/dsx/policy/*.hpp)
set(slots router optimizer)
foreach(header IN LISTS concepts)
  file(STRINGS ${header} names REGEX "^  static constexpr const char\\* name = \"[^\"]+\";")
  string(REGEX REPLACE ".*\"(.*)\".*" "\\1" slot "${names}")
  if(slot)
    list(APPEND slots ${slot})
  endif()
endforeach()
list(JOIN slots "|" known)

file(GLOB_RECURSE headers RELATIVE ${INCLUDE} ${INCLUDE}/dsx/*.hpp)
list(SORT headers)
set(includes "")
foreach(header IN LISTS headers)
  file(STRINGS ${INCLUDE}/${header} lines REGEX "^// dsx-policy:")
  if(lines)
    string(APPEND includes "#include <${header}>\n")
  endif()
  foreach(line IN LISTS lines)
    if(NOT line MATCHES "^// dsx-policy: (${known}) ([^ ]+) (.+)$")
      message(FATAL_ERROR "${header}: no `// dsx-policy: <slot> <name> <spelling>` with one of the slots ${known}: ${line}")
    endif()
    set(slot ${CMAKE_MATCH_1})
    set(entry "      Listed{\"${slot}\", \"${CMAKE_MATCH_2}\", \"${CMAKE_MATCH_3}\", \"${header}\", ${CMAKE_MATCH_3}},\n")
    set(list recipe)
    if(slot MATCHES "^(router|optimizer)$")
      set(list ${slot})
    endif()
    # A slot's identity, which stands beside its concept, comes first.
    if(header MATCHES "^dsx/policy/")
      string(APPEND first_${list} "${entry}")
    else()
      string(APPEND others_${list} "${entry}")
    endif()
  endforeach()
endforeach()
foreach(list recipe router optimizer)
  string(REGEX REPLACE ",\n$" "" entries_${list} "${first_${list}}${others_${list}}")
endforeach()

file(CONFIGURE OUTPUT ${OUTPUT} @ONLY CONTENT [=[
// Written by cmake/list_policies.cmake from the headers' lines `// dsx-policy:`.
#pragma once

@includes@
#include <tuple>

namespace dsx::listed {

template <class P>
struct Listed {
  const char *slot, *name, *spelling, *header;
  P policy;
};
template <class P>
Listed(const char*, const char*, const char*, const char*, P) -> Listed<P>;

inline auto recipe_policies() {
  return std::tuple{
@entries_recipe@};
}
inline auto routers([[maybe_unused]] Extent width) {
  return std::tuple{
@entries_router@};
}
inline auto optimizers() {
  return std::tuple{
@entries_optimizer@};
}

}  // namespace dsx::listed
]=])
