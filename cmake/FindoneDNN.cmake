# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
# oneDNN: oneDNN::oneDNN, oneDNN_LIBRARY, oneDNN_VERSION, oneDNN_THREADS (OMP, TBB, SEQ or THREADPOOL).
# The packaged config file asks for OpenCL's headers too, which a processor build has no use for.
find_path(oneDNN_INCLUDE_DIR dnnl.hpp PATH_SUFFIXES oneapi/dnnl)
find_library(oneDNN_LIBRARY dnnl)
set(oneDNN_THREADS "")
set(oneDNN_VERSION "")
if(oneDNN_INCLUDE_DIR)
  foreach(folder "${oneDNN_INCLUDE_DIR}" "${oneDNN_INCLUDE_DIR}/oneapi/dnnl")
    if(NOT oneDNN_VERSION AND EXISTS "${folder}/dnnl_version.h")
      file(STRINGS "${folder}/dnnl_version.h" numbers REGEX "#define DNNL_VERSION_(MAJOR|MINOR|PATCH) ")
      if(numbers)
        string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*PATCH ([0-9]+).*" "\\1.\\2.\\3" oneDNN_VERSION "${numbers}")
      endif()
      file(STRINGS "${folder}/dnnl_config.h" runtime REGEX "#define DNNL_CPU_THREADING_RUNTIME ")
      string(REGEX REPLACE ".*DNNL_RUNTIME_([A-Z]+).*" "\\1" oneDNN_THREADS "${runtime}")
    endif()
  endforeach()
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(oneDNN REQUIRED_VARS oneDNN_LIBRARY oneDNN_INCLUDE_DIR VERSION_VAR oneDNN_VERSION)
if(oneDNN_FOUND AND NOT TARGET oneDNN::oneDNN)
  add_library(oneDNN::oneDNN UNKNOWN IMPORTED)
  set_target_properties(oneDNN::oneDNN PROPERTIES
    IMPORTED_LOCATION "${oneDNN_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${oneDNN_INCLUDE_DIR}")
endif()
mark_as_advanced(oneDNN_INCLUDE_DIR oneDNN_LIBRARY)
