# One function for each kind of target, so that flags are set in one place.

add_library(tandem_flags INTERFACE)
target_include_directories(tandem_flags INTERFACE ${PROJECT_SOURCE_DIR})
# A designated initializer names what differs from the default: the rest is no mistake.
# FMA contraction would let two spellings of one sum differ: kernels say MulAdd.
set(TANDEM_CXX_OPTIONS
  -Wall -Wextra -Werror -Wno-missing-field-initializers -fno-math-errno -ffp-contract=off)
target_compile_options(tandem_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${TANDEM_CXX_OPTIONS}>)
if(TANDEM_SANITIZE)
  target_compile_options(tandem_flags INTERFACE
    -fsanitize=${TANDEM_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(tandem_flags INTERFACE -fsanitize=${TANDEM_SANITIZE})
endif()
if(TANDEM_SANITIZE STREQUAL "thread")
  # Protobuf's map fields have more members under TSan: Debian's library has not.
  target_compile_options(tandem_flags INTERFACE -U__SANITIZE_THREAD__)
endif()

# What tests, and the programs they start, are told of libraries that are not ours.
set(TANDEM_TEST_ENV)
if(TANDEM_SANITIZE STREQUAL "thread")
  set(TANDEM_TEST_ENV
    "TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/cmake/tsan_suppressions.txt")
elseif(TANDEM_SANITIZE)
  set(TANDEM_TEST_ENV
    "LSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/cmake/lsan_suppressions.txt")
endif()

# A program finds libraries beside itself, in ../lib, where there are any (scripts/bundle):
# as RPATH, so that the libraries' own libraries are found there too.
set(CMAKE_BUILD_RPATH "$ORIGIN/../lib")
target_link_options(tandem_flags INTERFACE "LINKER:--disable-new-dtags")

# tandem_library(NAME SRCS a.cc b.cc [DEPS x y] [PRIVATE_DEPS z])
function(tandem_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SRCS})
  target_link_libraries(${name} PUBLIC tandem_flags ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
endfunction()

# tandem_binary(NAME SRCS main.cc [DEPS x y]); lands in bin/.
function(tandem_binary name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE tandem_flags ${ARG_DEPS})
endfunction()

# tandem_test(NAME SRCS x_test.cc [DEPS x] [LABELS l] [TIMEOUT seconds] [ENV A=b])
# One ctest entry for each executable: a process start costs more than most cases.
function(tandem_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;DEPS;LABELS;ENV" ${ARGN})
  if(NOT TANDEM_BUILD_TESTS)
    return()
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_executable(${name} ${ARG_SRCS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/test_bin)
  target_link_libraries(${name} PRIVATE tandem_flags ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT})
  if(ARG_LABELS)
    set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}")
  endif()
  list(APPEND ARG_ENV ${TANDEM_TEST_ENV})
  if(ARG_ENV)
    set_tests_properties(${name} PROPERTIES ENVIRONMENT "${ARG_ENV}")
  endif()
endfunction()
