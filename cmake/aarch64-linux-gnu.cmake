# SPDX-License-Identifier: Apache-2.0
# Builds for aarch64 with Debian's cross-compiler, and runs the tests under qemu's user emulation.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(triple aarch64-linux-gnu)
find_program(CMAKE_CXX_COMPILER NAMES ${triple}-g++ ${triple}-g++-14 ${triple}-g++-13 ${triple}-g++-12 REQUIRED)
find_program(CMAKE_CROSSCOMPILING_EMULATOR NAMES qemu-aarch64-static qemu-aarch64 REQUIRED)
# Libraries of the target, which Debian keeps apart from those of the host.
list(APPEND CMAKE_CROSSCOMPILING_EMULATOR -L /usr/${triple})
set(CMAKE_FIND_ROOT_PATH /usr/${triple})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
