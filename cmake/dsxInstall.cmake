# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
# Install: headers, libdsx_kernels.a, find_package(dsx) and dsx.pc. No third-party header is needed afterwards.

include(CMakePackageConfigHelpers)
set(dsx_config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/dsx)

install(TARGETS dsx dsx_laws dsx_kernels EXPORT dsxTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILE_SET laws DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/dsx_laws)
install(EXPORT dsxTargets NAMESPACE dsx:: DESTINATION ${dsx_config_dir})

# dsx::<group> for each library behind dsx::kernels: the path found here is the first guess where it is installed.
set(dsx_runtime_calls "")
set(dsx_pc_libs "")
foreach(group IN LISTS dsx_link_groups)
  string(APPEND dsx_runtime_calls "dsx_find_runtime(${group}")
  foreach(library IN LISTS dsx_link_${group})
    string(APPEND dsx_runtime_calls " \"${library}\"")
    if(IS_ABSOLUTE "${library}")
      string(APPEND dsx_pc_libs " ${library}")
    else()
      string(APPEND dsx_pc_libs " -l${library}")
    endif()
  endforeach()
  string(APPEND dsx_runtime_calls ")\n")
endforeach()

configure_package_config_file(cmake/dsxConfig.cmake.in ${PROJECT_BINARY_DIR}/dsxConfig.cmake INSTALL_DESTINATION ${dsx_config_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/dsxConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/dsxConfig.cmake ${PROJECT_BINARY_DIR}/dsxConfigVersion.cmake DESTINATION ${dsx_config_dir})

file(RELATIVE_PATH dsx_pc_prefix ${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" dsx_pc_prefix "${dsx_pc_prefix}")
configure_file(cmake/dsx.pc.in ${PROJECT_BINARY_DIR}/dsx.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/dsx.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
