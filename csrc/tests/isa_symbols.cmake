# SPDX-License-Identifier: Apache-2.0
# Checks that a file compiled for a level defines shared (weak) symbols only in the namespace of its level. An inline
# function that is compiled with AVX-512 flags in one file and without in another is one symbol to the linker, which may
# keep the AVX-512 version: it crashes on processors without AVX-512.
set(levels "")
foreach(object IN LISTS OBJECTS)
  if(NOT object MATCHES "_(avx2|avx512|avx512_bf16|amx|neon_dot|neon_bf16)\\.cpp\\.o")
    continue()
  endif()
  list(APPEND levels ${CMAKE_MATCH_1})
  execute_process(COMMAND ${NM} -C --defined-only ${object} OUTPUT_VARIABLE symbols RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${NM} cannot read ${object}")
  endif()
  if(NOT symbols MATCHES " T atb_core::cpu::")  # in this form of the list the check would find nothing
    message(FATAL_ERROR "${NM} lists no function of ${object}")
  endif()
  string(REGEX MATCHALL "[0-9a-f]+ [WVu] [^\n]+" weak "${symbols}")
  foreach(symbol IN LISTS weak)
    if(NOT symbol MATCHES "atb_core::cpu::(avx2|avx512|avx512_bf16|amx|neon_dot|neon_bf16)")
      message(SEND_ERROR "${object} defines a symbol that other files may share: ${symbol}")
    endif()
  endforeach()
endforeach()
list(REMOVE_DUPLICATES levels)
if(NOT levels)
  message(FATAL_ERROR "no object has the name of a level: what does this check look for?")
endif()
message(STATUS "levels whose symbols are their own: ${levels}")
