# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
# Writes build/<preset>/tests/toolchain.json: the compiler, flags and libraries of this build, for the scripts
# that compile by themselves (compile_fail, mutations, consumer).

function(dsx_write_toolchain path)
  string(TOUPPER "${CMAKE_BUILD_TYPE}" type)
  separate_arguments(config_flags UNIX_COMMAND "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${type}}")
  set(own_flags ${dsx_own_options})
  set(openmp_flags ${dsx_no_openmp_flags})
  if(DSX_HAS_OPENMP)
    separate_arguments(openmp_flags UNIX_COMMAND "${OpenMP_CXX_FLAGS}")
  endif()
  set(links "")
  foreach(group IN LISTS dsx_link_groups)
    list(APPEND links ${dsx_link_${group}})
  endforeach()
  get_target_property(kernel_definitions dsx_kernels COMPILE_DEFINITIONS)
  get_target_property(test_definitions dsx_testing INTERFACE_COMPILE_DEFINITIONS)
  list(TRANSFORM test_definitions REPLACE "\"" "\\\\\"")
  get_target_property(eigen_include Eigen3::Eigen INTERFACE_INCLUDE_DIRECTORIES)
  get_target_property(json_include nlohmann_json::nlohmann_json INTERFACE_INCLUDE_DIRECTORIES)
  get_target_property(test_includes doctest::doctest INTERFACE_INCLUDE_DIRECTORIES)
  list(APPEND test_includes ${PROJECT_BINARY_DIR}/tests/generated)
  set(kernel_includes ${json_include} ${PCRE2_INCLUDE_DIR} ${eigen_include})
  if(DSX_HAS_ONEDNN)
    list(APPEND kernel_includes ${oneDNN_INCLUDE_DIR})
  endif()
  if(DSX_HAS_MPI)
    list(APPEND kernel_includes ${MPI_CXX_INCLUDE_DIRS})
  endif()
  if(DSX_HAS_CUDA)
    list(APPEND kernel_includes ${CUDAToolkit_INCLUDE_DIRS})
  endif()

  set(text "{\n")
  foreach(name config_flags own_flags openmp_flags kernel_definitions kernel_includes test_definitions test_includes links)
    set(words ${${name}})
    list(TRANSFORM words REPLACE "(.+)" "\"\\1\"")
    list(JOIN words ", " joined)
    string(APPEND text "  \"${name}\": [${joined}],\n")
  endforeach()
  string(APPEND text "  \"compiler\": \"${CMAKE_CXX_COMPILER}\",\n"
    "  \"compiler_id\": \"${CMAKE_CXX_COMPILER_ID}\",\n"
    "  \"launcher\": \"${CMAKE_CXX_COMPILER_LAUNCHER}\",\n"
    "  \"cmake\": \"${CMAKE_COMMAND}\",\n"
    "  \"build_type\": \"${CMAKE_BUILD_TYPE}\",\n"
    "  \"source\": \"${PROJECT_SOURCE_DIR}\",\n"
    "  \"build\": \"${PROJECT_BINARY_DIR}\",\n"
    "  \"kernels\": \"$<TARGET_FILE:dsx_kernels>\",\n"
    "  \"test_main\": \"$<TARGET_OBJECTS:dsx_test_main>\"\n}\n")
  file(GENERATE OUTPUT ${path} CONTENT "${text}")
endfunction()
