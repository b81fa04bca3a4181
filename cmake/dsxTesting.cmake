# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
# How tests become ctest entries.
#
#   dsx_add_test(core/shape SOURCES core/shape.cpp LABELS unit gold)
#
# builds tests/test_core_shape and, after each link, lists its TEST_CASEs: each is one ctest entry
# "core/shape: <name of the case>" that carries all the labels. A case adds labels of its own by its suite:
#
#   TEST_CASE("two sums agree" * doctest::test_suite("gold gradient")) { ... }
#
# dsx_add_tests_of(<folder> <labels>...) does so for each source of a folder, led by comment lines in the source:
#
#   // labels: gold gradient     more labels for all its cases
#   // processes: 2 4            each case under mpirun with 2 and with 4 processes; left out where MPI is not found
#   // timeout: 600              seconds a case may take (300)
#   // cores: 2                  processors that ctest reserves for a case (1)
#   // needs: train_gpt2         targets to build first
#   // sources: support/a.cpp    further sources, relative to tests/

find_package(Python3 3.9 COMPONENTS Interpreter REQUIRED)
# A version manager's wrapper takes longer to start than most scripts to run.
if(NOT DEFINED DSX_PYTHON)
  execute_process(COMMAND ${Python3_EXECUTABLE} -c "import sys; print(sys.executable, end='')" OUTPUT_VARIABLE python COMMAND_ERROR_IS_FATAL ANY)
  set(DSX_PYTHON "${python}" CACHE FILEPATH "The python3 that runs the tests' scripts")
endif()

# Words of the line "// <key>: words" in a source; the build looks again when the source changes.
function(dsx_header_words source key result)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${source}")
  file(STRINGS "${source}" lines REGEX "^// ${key}: ")
  list(JOIN lines " " text)
  string(REGEX REPLACE "// ${key}: " "" text "${text}")
  separate_arguments(words UNIX_COMMAND "${text}")
  set(${result} "${words}" PARENT_SCOPE)
endfunction()

# Where MPI is found: the words of a command that starts n processes.
function(dsx_mpirun n result)
  set(words ${MPIEXEC_EXECUTABLE})
  if(dsx_note_MPI MATCHES "Open MPI|OpenRTE")
    list(APPEND words --allow-run-as-root --oversubscribe --bind-to none)
  endif()
  set(${result} ${words} ${MPIEXEC_NUMPROC_FLAG} ${n} PARENT_SCOPE)
endfunction()

# tests_<folder> builds the tests of a folder, which may have none.
function(dsx_folder_target folder)
  if(NOT TARGET tests_${folder})
    add_custom_target(tests_${folder})
  endif()
endfunction()

function(dsx_add_test stem)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT;CORES" "SOURCES;LABELS;LIBRARIES;PROCESSES;NEEDS")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "dsx_add_test(${stem}): unknown words ${arg_UNPARSED_ARGUMENTS}")
  endif()
  if(arg_PROCESSES AND NOT DSX_HAS_MPI)
    dsx_note("test ${stem} left out: it needs MPI")
    return()
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  if(NOT arg_CORES)
    set(arg_CORES 1)
  endif()
  list(REMOVE_DUPLICATES arg_LABELS)
  string(REGEX REPLACE "[^A-Za-z0-9_]" "_" target "test_${stem}")

  add_executable(${target} ${arg_SOURCES})
  target_link_libraries(${target} PRIVATE dsx_testing dsx_test_main ${arg_LIBRARIES})
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  string(REGEX REPLACE "/.*" "" folder "${stem}")
  dsx_folder_target(${folder})
  add_dependencies(tests_${folder} ${target})
  foreach(needed IN LISTS arg_NEEDS)
    set_property(GLOBAL APPEND PROPERTY dsx_needs "${target}|${needed}")
  endforeach()

  set(script ${PROJECT_BINARY_DIR}/tests/cases/${target}.cmake)
  set(runs "")
  foreach(n IN LISTS arg_PROCESSES)
    dsx_mpirun(${n} prefix)
    list(APPEND runs --run "${n}" ${prefix} --)
  endforeach()
  add_custom_command(TARGET ${target} POST_BUILD VERBATIM
    BYPRODUCTS ${script}
    COMMENT "Listing the cases of ${stem}"
    COMMAND ${DSX_PYTHON} ${PROJECT_SOURCE_DIR}/cmake/discover_cases.py
      --program $<TARGET_FILE:${target}> --stem ${stem} --labels "${arg_LABELS}" --timeout ${arg_TIMEOUT}
      --cores ${arg_CORES} --output ${script} ${runs})
  # What was never built fails by name instead of vanishing.
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/tests/cases/${target}.include.cmake @ONLY CONTENT
"if(EXISTS \"@script@\")
  include(\"@script@\")
else()
  add_test(\"@stem@: was not built\" \"@target@_was_not_built\")
endif()
")
  set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${PROJECT_BINARY_DIR}/tests/cases/${target}.include.cmake)
endfunction()

function(dsx_add_tests_of folder)
  dsx_folder_target(${folder})
  file(GLOB sources CONFIGURE_DEPENDS ${folder}/*.cpp)
  foreach(source IN LISTS sources)
    cmake_path(GET source STEM LAST_ONLY name)
    foreach(key labels processes timeout cores needs sources)
      dsx_header_words(${source} ${key} words_${key})
    endforeach()
    dsx_add_test(${folder}/${name} SOURCES ${source} ${words_sources} LABELS ${ARGN} ${words_labels}
      PROCESSES ${words_processes} TIMEOUT ${words_timeout} CORES ${words_cores} NEEDS ${words_needs})
  endforeach()
endfunction()

# Targets named by "// needs:" may be declared after the test: call this last.
function(dsx_resolve_needs)
  get_property(entries GLOBAL PROPERTY dsx_needs)
  foreach(entry IN LISTS entries)
    string(REGEX MATCH "^([^|]*)\\|(.*)$" entry "${entry}")
    set(test ${CMAKE_MATCH_1})
    set(target ${CMAKE_MATCH_2})
    if(TARGET ${target})
      add_dependencies(${test} ${target})
    else()
      dsx_note("${test} needs ${target}, which this build does not have")
    endif()
  endforeach()
endfunction()

# A ctest entry that is a script or a program of its own.
function(dsx_add_check name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT;CORES" "COMMAND;LABELS;ENVIRONMENT")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  if(NOT arg_CORES)
    set(arg_CORES 1)
  endif()
  add_test(NAME "${name}" COMMAND ${arg_COMMAND})
  set_tests_properties("${name}" PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT} PROCESSORS ${arg_CORES}
    SKIP_RETURN_CODE 77 ENVIRONMENT "${arg_ENVIRONMENT}")
endfunction()
