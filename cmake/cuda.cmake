# The modules _cuda and _emulated. The first has everything of CUDA in it, the runtime too: a wheel
# without it is the same but for one file.
if(NOT FASTLLC_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "FASTLLC_CUDA must be AUTO, ON or OFF, got '${FASTLLC_CUDA}'")
endif()

set(FASTLLC_CUDA_HOST csrc/cuda/pack.cpp csrc/cuda/run.cpp)

if(FASTLLC_EMULATED)
  pybind11_add_module(_emulated MODULE NO_EXTRAS
    csrc/bindings/emulated.cpp csrc/cuda/emulated.cpp ${FASTLLC_CUDA_HOST})
  target_link_libraries(_emulated PRIVATE fastllc_flags)
  target_compile_options(_emulated PRIVATE -O1)  # compiles in half the time, and has little to do
  install(TARGETS _emulated LIBRARY DESTINATION fastllc)
endif()

if(FASTLLC_CUDA STREQUAL "OFF")
  message(STATUS "fastllc: no CUDA (FASTLLC_CUDA=OFF)")
  return()
endif()

set(reason)
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  set(reason "no CUDA compiler that works: set CUDACXX to the path of nvcc")
else()
  set(default_architectures OFF)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
    set(default_architectures ON)
    set(CMAKE_CUDA_ARCHITECTURES OFF)  # the compiler's default would stay in the cache as our choice
  endif()
  enable_language(CUDA)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.1)  # first with 32 KiB of arguments to a kernel
    set(reason "CUDA must be >= 12.1, got ${CMAKE_CUDA_COMPILER_VERSION}")
  endif()
endif()
if(reason)
  if(FASTLLC_CUDA STREQUAL "ON")
    message(FATAL_ERROR "FASTLLC_CUDA=ON: ${reason}")
  endif()
  message(STATUS "fastllc: no CUDA (${reason})")
  return()
endif()

# Machine code for the first of each generation since 7.5, which runs on the others of it, and PTX of
# the last for what is to come.
if(default_architectures)
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.8)
    list(APPEND CMAKE_CUDA_ARCHITECTURES 90)
  elseif(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 13.0)
    list(APPEND CMAKE_CUDA_ARCHITECTURES 90-real 100-real 120)
  else()
    list(APPEND CMAKE_CUDA_ARCHITECTURES 90-real 100-real 110-real 120)
  endif()
endif()
message(STATUS "fastllc: CUDA ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")

pybind11_add_module(_cuda MODULE NO_EXTRAS
  csrc/bindings/cuda.cpp
  csrc/cuda/bfloat16.cu
  csrc/cuda/device_api.cu
  csrc/cuda/float16.cu
  csrc/cuda/float32.cu
  csrc/cuda/float64.cu
  ${FASTLLC_CUDA_HOST})
set_target_properties(_cuda PROPERTIES
  CUDA_RUNTIME_LIBRARY Static
  CUDA_STANDARD 17
  CUDA_STANDARD_REQUIRED ON
  CUDA_EXTENSIONS OFF
  CUDA_VISIBILITY_PRESET hidden)
target_link_libraries(_cuda PRIVATE fastllc_flags)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
  # A fifth of the size.
  target_compile_options(_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-compress-mode=size>)
endif()
target_compile_definitions(_cuda PRIVATE FASTLLC_VERSION="${SKBUILD_PROJECT_VERSION}")
install(TARGETS _cuda LIBRARY DESTINATION fastllc)
