# SPDX-License-Identifier: Apache-2.0
# The libraries of csrc by layer: atb_graph <- atb_models <- atb_cpu. The Ascend backend and its simulator, which
# AscendBackend.cmake adds, need the first two only.
set(_atb_csrc ${CMAKE_CURRENT_LIST_DIR}/../csrc)

# Adds the library <name> from the C++ sources of folders of csrc.
function(_atb_core_add_library name)
  list(TRANSFORM ARGN REPLACE "(.+)" "${_atb_csrc}/\\1/*.cpp" OUTPUT_VARIABLE patterns)
  file(GLOB sources CONFIGURE_DEPENDS ${patterns})
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    list(FILTER sources EXCLUDE REGEX "_(avx2|avx512|avx512_bf16|amx)\\.cpp$")
  endif()
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    list(FILTER sources EXCLUDE REGEX "_neon(_dot|_bf16)?\\.cpp$")
  endif()
  add_library(${name} STATIC ${sources})
endfunction()

# Adds atb_graph, the graph that all backends share, and atb_models, the models whose graph C++ builds.
function(atb_core_add_graph)
  _atb_core_add_library(atb_graph graph)
  target_include_directories(atb_graph PUBLIC ${_atb_csrc}/include ${_atb_csrc})
  target_link_libraries(atb_graph PUBLIC Threads::Threads ${CMAKE_DL_LIBS})
  # The kernels give the same bits on every level: the compiler may neither fuse nor reorder float operations.
  target_compile_options(atb_graph PUBLIC -Wall -Wextra $<$<BOOL:${ATB_WERROR}>:-Werror> -ffp-contract=off
                                          -fno-math-errno)
  _atb_core_add_library(atb_models models)
  target_link_libraries(atb_models PUBLIC atb_graph)
endfunction()

# Adds atb_cpu, the CPU engine with its kernels.
#
# A kernel source is compiled once per instruction set level. The level is in the file's name and selected at run time,
# so that the library runs on every processor of the architecture. Each level adds to the one below.
function(atb_core_add_cpu)
  _atb_core_add_library(atb_cpu cpu cpu/engine cpu/kernels)
  target_link_libraries(atb_cpu PUBLIC atb_models)
  # Kernels read the same bytes as integers of 16 bits, words and floats.
  target_compile_options(atb_cpu PRIVATE -fno-strict-aliasing)
  set(flags_avx2 -mavx2 -mfma -mf16c)
  set(flags_avx512 ${flags_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl)
  set(flags_avx512_bf16 ${flags_avx512} -mavx512bf16 -mavx512vnni)
  set(flags_amx ${flags_avx512_bf16} -mamx-tile -mamx-bf16)
  set(flags_neon_dot -march=armv8.2-a+dotprod)
  set(flags_neon_bf16 ${flags_neon_dot}+bf16+i8mm)
  get_target_property(sources atb_cpu SOURCES)
  foreach(source IN LISTS sources)
    if(source MATCHES "_(avx2|avx512|avx512_bf16|amx|neon_dot|neon_bf16)\\.cpp$")
      set_property(SOURCE ${source} APPEND PROPERTY COMPILE_OPTIONS "${flags_${CMAKE_MATCH_1}}")
    endif()
    # Before it allocates registers, GCC moves loads up on aarch64, unlike on x86, until tiles no longer fit into 32 of them:
    # three rows of bf16 had 340 stores and 500 loads of the stack for 384 multiply-adds, and have none without it.
    if(source MATCHES "_neon(_dot|_bf16)?\\.cpp$" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      set_property(SOURCE ${source} APPEND PROPERTY COMPILE_OPTIONS -fno-schedule-insns)
    endif()
  endforeach()
endfunction()
