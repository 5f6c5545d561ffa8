# SPDX-License-Identifier: Apache-2.0
# Finds ATB and ACL for the Ascend backend; `find_package(Ascend)` with this folder in CMAKE_MODULE_PATH.
#
# Reads, each as a CMake variable or else from the environment, as the vendor's set_env.sh sets them:
#   ATB_HOME_PATH                             .../nnal/atb/latest/atb/cxx_abi_<N>
#   ASCEND_HOME_PATH or ASCEND_TOOLKIT_HOME   the CANN toolkit
# Sets:
#   Ascend_FOUND       true if all of it was found
#   Ascend_PROBLEM     otherwise the variable that is not set, or the file that is missing where it points
#   Ascend_CXX_ABI     0 or 1, the N of ATB_HOME_PATH: the value of _GLIBCXX_USE_CXX11_ABI that libatb.so is built with
# and adds the imported target Ascend::Ascend with includes, libraries and that definition.

set(Ascend_FOUND FALSE)
set(Ascend_PROBLEM "")
set(Ascend_CXX_ABI "")

# Sets <name_out> and <value_out> to the first of the variables that has a value, and that value.
function(_ascend_variable name_out value_out)
  foreach(name IN LISTS ARGN)
    if(DEFINED ${name} AND NOT "${${name}}" STREQUAL "")
      set(value "${${name}}")
    elseif(DEFINED ENV{${name}} AND NOT "$ENV{${name}}" STREQUAL "")
      set(value "$ENV{${name}}")
    else()
      continue()
    endif()
    file(TO_CMAKE_PATH "${value}" value)
    set(${name_out} ${name} PARENT_SCOPE)
    set(${value_out} "${value}" PARENT_SCOPE)
    return()
  endforeach()
  set(${name_out} "" PARENT_SCOPE)
  set(${value_out} "" PARENT_SCOPE)
endfunction()

_ascend_variable(_atb_variable _atb_home ATB_HOME_PATH)
_ascend_variable(_cann_variable _cann_home ASCEND_HOME_PATH ASCEND_TOOLKIT_HOME)

if(NOT _atb_home)
  set(Ascend_PROBLEM "ATB_HOME_PATH is not set: source .../nnal/atb/set_env.sh")
elseif(NOT _cann_home)
  set(Ascend_PROBLEM
      "neither ASCEND_HOME_PATH nor ASCEND_TOOLKIT_HOME is set: source the set_env.sh of the CANN toolkit")
else()
  foreach(file include/atb/atb_infer.h lib/libatb.so)
    if(NOT Ascend_PROBLEM AND NOT EXISTS "${_atb_home}/${file}")
      set(Ascend_PROBLEM "ATB_HOME_PATH=${_atb_home} does not hold ${file}")
    endif()
  endforeach()
  foreach(file include/acl/acl.h include/hccl/hccl_types.h lib64/libascendcl.so)
    if(NOT Ascend_PROBLEM AND NOT EXISTS "${_cann_home}/${file}")
      set(Ascend_PROBLEM "${_cann_variable}=${_cann_home} does not hold ${file}")
    endif()
  endforeach()
endif()

if(NOT Ascend_PROBLEM)
  # The folder's own name first: a link may have another name.
  get_filename_component(_atb_real "${_atb_home}" REALPATH)
  foreach(folder "${_atb_home}" "${_atb_real}")
    if(Ascend_CXX_ABI STREQUAL "" AND folder MATCHES "cxx_abi_([01])/*$")
      set(Ascend_CXX_ABI ${CMAKE_MATCH_1})
    endif()
  endforeach()
  if(Ascend_CXX_ABI STREQUAL "")
    set(Ascend_PROBLEM "ATB_HOME_PATH=${_atb_home} does not name the folder of one C++ ABI, .../cxx_abi_0 or .../cxx_abi_1")
  endif()
endif()

if(NOT Ascend_PROBLEM)
  # Compilers of some distributions support one ABI only and silently ignore the definition.
  include(CheckCXXSourceCompiles)
  set(CMAKE_REQUIRED_DEFINITIONS -D_GLIBCXX_USE_CXX11_ABI=${Ascend_CXX_ABI})
  check_cxx_source_compiles("#include <string>
#if _GLIBCXX_USE_CXX11_ABI != ${Ascend_CXX_ABI}
#error the other ABI
#endif
int main() { return 0; }" ASCEND_COMPILER_HAS_CXX_ABI_${Ascend_CXX_ABI})
  unset(CMAKE_REQUIRED_DEFINITIONS)
  if(NOT ASCEND_COMPILER_HAS_CXX_ABI_${Ascend_CXX_ABI})
    set(Ascend_PROBLEM "this compiler cannot build for the C++ ABI of ATB_HOME_PATH=${_atb_home}")
  endif()
endif()

if(NOT Ascend_PROBLEM)
  set(Ascend_FOUND TRUE)
  if(NOT TARGET Ascend::Ascend)
    add_library(Ascend::Ascend INTERFACE IMPORTED)
    set_target_properties(Ascend::Ascend PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "${_atb_home}/include;${_cann_home}/include"
      INTERFACE_COMPILE_DEFINITIONS "_GLIBCXX_USE_CXX11_ABI=${Ascend_CXX_ABI}"
      # By name and not by path: the path of a library without a soname would be recorded.
      INTERFACE_LINK_DIRECTORIES "${_atb_home}/lib;${_cann_home}/lib64"
      INTERFACE_LINK_LIBRARIES "atb;ascendcl")
  endif()
elseif(Ascend_FIND_REQUIRED)
  message(FATAL_ERROR "Ascend: ${Ascend_PROBLEM}")
endif()
