# SPDX-License-Identifier: Apache-2.0
# Compiler settings for everything in csrc. A project includes this file after project() and before it adds libraries.
if(SKBUILD)
  set(ATB_WERROR_DEFAULT OFF) # a newer compiler of a user may warn about more
else()
  set(ATB_WERROR_DEFAULT ON)
endif()
option(ATB_WERROR "Treat warnings as errors" ${ATB_WERROR_DEFAULT})
set(ATB_SANITIZE "" CACHE STRING "Sanitizer for all code: address (with undefined) or thread")
set_property(CACHE ATB_SANITIZE PROPERTY STRINGS "" address thread)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

if(NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER AND NOT DEFINED ENV{CMAKE_CXX_COMPILER_LAUNCHER})
  find_program(ATB_CCACHE ccache)
  mark_as_advanced(ATB_CCACHE)
  if(ATB_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${ATB_CCACHE})
  endif()
endif()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
# At -O3 the instrumented kernels take many minutes and gigabytes to compile.
if(ATB_SANITIZE)
  set(CMAKE_CXX_FLAGS_RELEASE "-O1")
else()
  set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
endif()

find_package(Threads REQUIRED)

if(ATB_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=address,undefined)
elseif(ATB_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=thread -g1)
  add_link_options(-fsanitize=thread)
elseif(ATB_SANITIZE)
  message(FATAL_ERROR "ATB_SANITIZE must be empty, address or thread, not '${ATB_SANITIZE}'")
endif()

# Finds Python and nanobind, of the interpreter that builds. A macro: find_package() sets variables of its caller.
macro(atb_core_find_nanobind)
  find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module
               OPTIONAL_COMPONENTS Development.SABIModule)
  if(NOT nanobind_DIR)
    execute_process(COMMAND ${Python_EXECUTABLE} -m nanobind --cmake_dir
                    OUTPUT_STRIP_TRAILING_WHITESPACE OUTPUT_VARIABLE nanobind_DIR)
  endif()
  find_package(nanobind CONFIG REQUIRED)
endmacro()
