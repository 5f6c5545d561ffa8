# SPDX-License-Identifier: Apache-2.0

# atb_core_add_sbom(<distribution>)
#
# Adds to the wheel the list of foreign code that is linked into its modules, in CycloneDX, where PEP 770 wants it:
# nanobind, and the robin_map inside nanobind. Call it after atb_core_find_nanobind().
function(atb_core_add_sbom distribution)
  if(NOT SKBUILD)
    return()
  endif()
  set(policy ${nanobind_DIR}/../ext/robin_map/include/tsl/robin_growth_policy.h)
  file(STRINGS ${policy} robin_map_VERSION REGEX "define TSL_RH_VERSION_(MAJOR|MINOR|PATCH) [0-9]+")
  list(TRANSFORM robin_map_VERSION REPLACE ".* " "")
  list(JOIN robin_map_VERSION "." robin_map_VERSION)
  set(robin_map_PURL "pkg:github/Tessil/robin-map@v${robin_map_VERSION}")
  set(sbom ${CMAKE_CURRENT_BINARY_DIR}/${distribution}.cdx.json)
  configure_file(${CMAKE_CURRENT_FUNCTION_LIST_DIR}/sbom.cdx.json.in ${sbom} @ONLY)
  install(FILES ${sbom} DESTINATION ${SKBUILD_METADATA_DIR}/sboms)
endfunction()
