# SPDX-License-Identifier: Apache-2.0
# An inline function that is compiled in a file with AVX-512 flags and in one without is one symbol to the linker,
# which may keep the AVX-512 version: it then crashes on processors without it. So a file compiled for a level may
# define shared (weak) symbols only in the namespace of its level.
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
    if(NOT symbol MATCHES "atb_core::cpu::(avx2|avx512|avx512_bf16|amx)")
      message(SEND_ERROR "${object} defines a symbol that other files may share: ${symbol}")
    endif()
  endforeach()
endforeach()
