# SPDX-License-Identifier: Apache-2.0
# The Ascend backend csrc/atb, built against the real ATB, against the simulator, or both.
set(ATB_CORE_WITH_ATB AUTO CACHE STRING "Build the Ascend backend against ATB: ON, OFF, or AUTO where ATB is found")
set_property(CACHE ATB_CORE_WITH_ATB PROPERTY STRINGS AUTO ON OFF)
option(ATB_CORE_COVERAGE "Instrument csrc/atb, csrc/sim and csrc/models for a report of line coverage by gcovr" OFF)

list(APPEND CMAKE_MODULE_PATH ${CMAKE_CURRENT_LIST_DIR})
set(_ascend_root ${CMAKE_CURRENT_LIST_DIR}/..)

# Sets <found_out> to TRUE if the backend is built against the real ATB. Stops with an error if ATB_CORE_WITH_ATB=ON and
# ATB is not found.
function(atb_core_find_atb found_out)
  set(${found_out} FALSE PARENT_SCOPE)
  string(TOUPPER "${ATB_CORE_WITH_ATB}" wanted)
  if(wanted STREQUAL "AUTO")
    find_package(Ascend QUIET MODULE)
    if(NOT Ascend_FOUND)
      message(STATUS "Ascend backend: not built against ATB (${Ascend_PROBLEM})")
      return()
    endif()
  elseif(wanted MATCHES "^(ON|YES|TRUE|Y|1)$")
    find_package(Ascend QUIET MODULE)
    if(NOT Ascend_FOUND)
      message(FATAL_ERROR "ATB_CORE_WITH_ATB=${ATB_CORE_WITH_ATB}, but ${Ascend_PROBLEM}")
    endif()
  elseif(wanted MATCHES "^(OFF|NO|FALSE|N|0)$")
    message(STATUS "Ascend backend: not built against ATB (ATB_CORE_WITH_ATB=OFF)")
    return()
  else()
    message(FATAL_ERROR "ATB_CORE_WITH_ATB must be ON, OFF or AUTO, not '${ATB_CORE_WITH_ATB}'")
  endif()
  message(STATUS "Ascend backend: built against ATB, C++ ABI ${Ascend_CXX_ABI}")
  set(${found_out} TRUE PARENT_SCOPE)
  set(Ascend_CXX_ABI ${Ascend_CXX_ABI} PARENT_SCOPE)
endfunction()

# Adds the library atb_simulator, the simulator of ATB and ACL. Its headers have the vendor's names and come first.
function(atb_core_add_simulator)
  if(TARGET atb_simulator)
    return()
  endif()
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${_ascend_root}/csrc/sim/src/*.cpp)
  # layout_check.cpp holds static_asserts only: a header that departs from ATB's layout does not compile.
  add_library(atb_simulator STATIC ${sources} ${_ascend_root}/csrc/atb/checks/layout_check.cpp)
  target_include_directories(atb_simulator BEFORE PUBLIC ${_ascend_root}/csrc/sim/include)
  target_include_directories(atb_simulator PRIVATE ${_ascend_root}/csrc/sim/src)
  target_compile_options(atb_simulator PRIVATE -Wall -Wextra $<$<BOOL:${ATB_WERROR}>:-Werror> -ffp-contract=off)
  target_link_libraries(atb_simulator PUBLIC Threads::Threads ${CMAKE_DL_LIBS})
endfunction()

# Adds the backend csrc/atb: the library atb_backend_sim over the simulator, or atb_backend_real over ATB and ACL.
function(atb_core_add_backend kind)
  string(TOLOWER atb_backend_${kind} library)
  if(TARGET ${library})
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS ${_ascend_root}/csrc/atb/*.cpp)
  add_library(${library} STATIC ${sources})
  target_link_libraries(${library} PUBLIC ${CMAKE_DL_LIBS})  # aclnn_library.cpp loads libopapi
  if(kind STREQUAL "SIM")
    atb_core_add_simulator()
    target_link_libraries(${library} PUBLIC atb_simulator atb_models)
  elseif(kind STREQUAL "REAL")
    _atb_core_models_for_abi(models)
    target_link_libraries(${library} PUBLIC Ascend::Ascend ${models})
  else()
    message(FATAL_ERROR "the backend is REAL or SIM, not '${kind}'")
  endif()
endfunction()

# atb_core_add_ascend(<module> REAL|SIM <package>)
#
# Adds the Python extension <module> over the backend, installed into <package>. Needs nanobind.
function(atb_core_add_ascend module kind package)
  atb_core_add_backend(${kind})
  string(TOLOWER atb_backend_${kind} backend)
  set(bindings ${_ascend_root}/csrc/bindings)
  set(controls ${bindings}/no_simulator.cpp)
  if(kind STREQUAL "SIM")
    set(controls ${bindings}/simulator.cpp)
  endif()
  # A domain of its own: both modules bind the same C++ classes, and nanobind would confuse them.
  nanobind_add_module(${module} STABLE_ABI NB_STATIC NOMINSIZE NB_DOMAIN ${module}
                      ${bindings}/atb_module.cpp ${bindings}/models.cpp ${bindings}/convert.cpp ${controls})
  target_compile_definitions(${module} PRIVATE ATB_MODULE_NAME=${module})
  target_link_libraries(${module} PRIVATE ${backend})
  # set_env.sh puts the folders of the libraries on LD_LIBRARY_PATH; the paths of the build machine do not belong there.
  set_target_properties(${module} PROPERTIES SKIP_BUILD_RPATH TRUE)
  install(TARGETS ${module} LIBRARY DESTINATION ${package})
endfunction()

# Sets <models_out> to the library of models for ATB's C++ ABI. ATB's interfaces pass std::string, so where ATB is built
# for an ABI that is not the compiler's default, graph and models are compiled a second time.
function(_atb_core_models_for_abi models_out)
  include(CheckCXXSourceCompiles)
  check_cxx_source_compiles("#include <string>
#if _GLIBCXX_USE_CXX11_ABI != ${Ascend_CXX_ABI}
#error the other ABI
#endif
int main() { return 0; }" ASCEND_ABI_${Ascend_CXX_ABI}_IS_DEFAULT)
  if(ASCEND_ABI_${Ascend_CXX_ABI}_IS_DEFAULT)
    set(${models_out} atb_models PARENT_SCOPE)
    return()
  endif()
  set(library atb_models_abi${Ascend_CXX_ABI})
  if(NOT TARGET ${library})
    message(STATUS "Ascend backend: graph and models are compiled a second time, for C++ ABI ${Ascend_CXX_ABI}")
    get_target_property(graph_sources atb_graph SOURCES)
    get_target_property(model_sources atb_models SOURCES)
    foreach(property INCLUDE_DIRECTORIES LINK_LIBRARIES COMPILE_OPTIONS)
      get_target_property(${property} atb_graph ${property})
    endforeach()
    add_library(${library} STATIC ${graph_sources} ${model_sources})
    target_include_directories(${library} PUBLIC ${INCLUDE_DIRECTORIES})
    target_link_libraries(${library} PUBLIC ${LINK_LIBRARIES})
    target_compile_options(${library} PUBLIC ${COMPILE_OPTIONS})
    target_compile_definitions(${library} PUBLIC _GLIBCXX_USE_CXX11_ABI=${Ascend_CXX_ABI})
  endif()
  set(${models_out} ${library} PARENT_SCOPE)
endfunction()

# Instruments csrc/atb, csrc/sim and csrc/models if ATB_CORE_COVERAGE is set. Call it after the libraries are added and
# in the same folder: CMake keeps the properties of source files by folder.
function(atb_core_cover)
  if(NOT ATB_CORE_COVERAGE)
    return()
  endif()
  set(csrc ${_ascend_root}/csrc)
  file(GLOB covered CONFIGURE_DEPENDS ${csrc}/atb/*.cpp ${csrc}/sim/src/*.cpp ${csrc}/models/*.cpp)
  file(GLOB kernels CONFIGURE_DEPENDS ${csrc}/sim/src/ops/*.cpp)
  # Worker threads run this code. In the simulator's kernels atomic counters would take longer than the computation;
  # a plain counter may lose a count, which does not change whether a line is covered.
  set_property(SOURCE ${covered} APPEND PROPERTY COMPILE_OPTIONS --coverage -fprofile-update=atomic)
  set_property(SOURCE ${kernels} APPEND PROPERTY COMPILE_OPTIONS --coverage -fprofile-update=single -O1)
  foreach(library atb_models atb_simulator atb_backend_sim atb_backend_real)
    if(TARGET ${library})
      target_link_options(${library} INTERFACE --coverage)
    endif()
  endforeach()
endfunction()
