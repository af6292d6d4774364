# The CUDA backend is built where a CUDA compiler is found.
#   TANDEM_CUDA                AUTO (default), ON (fail without one) or OFF
#   TANDEM_CUDA_ARCHITECTURES  what kernels are compiled for; the preset cuda-release names all
set(TANDEM_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO, ON or OFF.")
set(TANDEM_CUDA_ARCHITECTURES "75-real;90-real" CACHE STRING "CUDA architectures to compile for.")

set(TANDEM_HAS_CUDA OFF)
# A sanitizer's runtime and the CUDA runtime do not share an address space well.
if(NOT TANDEM_CUDA STREQUAL "OFF" AND NOT TANDEM_SANITIZE)
  if(NOT CMAKE_CUDA_COMPILER AND EXISTS /usr/local/cuda/bin/nvcc)
    set(CMAKE_CUDA_COMPILER /usr/local/cuda/bin/nvcc)
  endif()
  set(CMAKE_CUDA_ARCHITECTURES ${TANDEM_CUDA_ARCHITECTURES})
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    # CMake 3.25 does not know how CUDA 13 spells C++20.
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    endif()
    if(CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
      set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
    endif()
    set(TANDEM_HAS_CUDA ON)
  elseif(TANDEM_CUDA STREQUAL "ON")
    message(FATAL_ERROR "TANDEM_CUDA is ON and no CUDA compiler was found: set CMAKE_CUDA_COMPILER")
  endif()
endif()
message(STATUS "CUDA backend: ${TANDEM_HAS_CUDA}")

# tandem_cuda_library(NAME SRCS a.cu b.cc [DEPS x]); linked with the static CUDA runtime.
# Multiplications and additions stay apart unless a kernel says fmaf: two kernels that
# must give the same bits are compiled apart.
function(tandem_cuda_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SRCS})
  target_link_libraries(${name} PUBLIC tandem_flags ${ARG_DEPS} CUDA::cudart_static)
  target_compile_options(${name} PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false --Werror=all-warnings --expt-relaxed-constexpr
      -Xcompiler=-Wall,-Wextra,-Wno-missing-field-initializers,-Wno-unused-parameter>)
endfunction()
