# SPDX-License-Identifier: Apache-2.0
# Checks that a file compiled for a level defines shared (weak) symbols only in the namespace of its level. An inline
# function that is compiled with AVX-512 flags in one file and without in another is one symbol to the linker, which may
# keep the AVX-512 version: it crashes on processors without AVX-512.
set(guarded "")
foreach(object IN LISTS OBJECTS)
  if(NOT object MATCHES "_(avx2|avx512|avx512_bf16|amx)\\.cpp\\.o")
    continue()
  endif()
  execute_process(COMMAND ${NM} -C --defined-only ${object} OUTPUT_VARIABLE symbols RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${NM} cannot read ${object}")
  endif()
  string(REGEX MATCHALL "[0-9a-f]+ [WVu] [^\n]+" weak "${symbols}")
  foreach(symbol IN LISTS weak)
    if(symbol MATCHES "atb_core::cpu::(avx2|avx512|avx512_bf16|amx)")
      list(APPEND guarded ${CMAKE_MATCH_1})
    else()
      message(SEND_ERROR "${object} defines a symbol that other files may share: ${symbol}")
    endif()
  endforeach()
endforeach()
# With other names of files or namespaces the check would find nothing, and pass.
list(REMOVE_DUPLICATES guarded)
if(NOT guarded)
  message(FATAL_ERROR "no object defines a symbol in the namespace of its level: what does this check look for?")
endif()
message(STATUS "levels with symbols of their own: ${guarded}")
