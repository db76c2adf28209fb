# Compiler settings and the three helpers every folder uses: us_library, us_test, us_fuzzer.
include_guard()
include(GNUInstallDirs)

option(US_WERROR "Treat warnings as errors (on in the presets)" OFF)
option(US_FUZZ "Build the libFuzzer targets (Clang only)" OFF)
option(US_COVERAGE "Instrument for gcov" OFF)
set(US_SANITIZE "" CACHE STRING "Comma-separated sanitizers, e.g. address,undefined or thread")

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
# -O2 in release; assertions are our own (base/check.h) and stay on, so NDEBUG hides nothing of ours.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g")

add_library(us_options INTERFACE)
target_include_directories(us_options INTERFACE "${PROJECT_SOURCE_DIR}")
# x86-64-v2 is the floor for hosts: the software processor maps guest SSE4.2 onto it.
target_compile_options(us_options INTERFACE -march=x86-64-v2 -mtune=generic -Wall -Wextra -Wshadow
  $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor> -Wno-unused-parameter
  -Wno-missing-field-initializers -fno-strict-aliasing)
if(US_WERROR)
  target_compile_options(us_options INTERFACE -Werror)
endif()
if(US_SANITIZE)
  target_compile_options(us_options INTERFACE -fsanitize=${US_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(us_options INTERFACE -fsanitize=${US_SANITIZE})
  # GCC 12 sees uninitialised values in moved variants once they are instrumented; nobody else does.
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(us_options INTERFACE -Wno-maybe-uninitialized)
  endif()
  if(US_SANITIZE MATCHES "undefined")
    target_compile_options(us_options INTERFACE -fno-sanitize-recover=undefined)
  endif()
  target_compile_definitions(us_options INTERFACE US_SANITIZED=1)
endif()
if(US_FUZZ)
  target_compile_options(us_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(US_COVERAGE)
  target_compile_options(us_options INTERFACE --coverage)
  target_link_options(us_options INTERFACE --coverage)
endif()

# us_library(NAME [LIBRARIES lib...]): a static library of every .cc in this folder.
function(us_library name)
  cmake_parse_arguments(arg "" "" "LIBRARIES" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS "*.cc" "*.c")
  if(NOT sources)
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE us_options ${arg_LIBRARIES})
    return()
  endif()
  add_library(${name} STATIC ${sources})
  set_target_properties(${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_link_libraries(${name} PUBLIC us_options ${arg_LIBRARIES})
endfunction()

# us_test(NAME [LIBRARIES lib...] [LABELS l...] [TIMEOUT s]): one doctest binary of this folder's *.cc.
function(us_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "LIBRARIES;LABELS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS "*.cc")
  add_executable(${name} ${sources} "${PROJECT_SOURCE_DIR}/tests/support/doctest_main.cc")
  target_link_libraries(${name} PRIVATE us_options ${arg_LIBRARIES})
  add_test(NAME ${name} COMMAND ${name})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}" SKIP_RETURN_CODE 77)
endfunction()

# us_each_executor(NAME COMMAND...): the test NAME, which runs as users run it, also by the interpreter alone
# and with every block translated before it first runs.
function(us_each_executor name)
  add_test(NAME ${name}_interpreted COMMAND ${ARGN})
  add_test(NAME ${name}_translated COMMAND ${ARGN})
  get_test_property(${name} LABELS labels)
  set_tests_properties(${name}_interpreted ${name}_translated PROPERTIES TIMEOUT 600 LABELS "${labels}")
  set_tests_properties(${name}_interpreted PROPERTIES ENVIRONMENT "UNDERSTUDY_EXECUTOR=interpret")
  set_tests_properties(${name}_translated PROPERTIES
    ENVIRONMENT "UNDERSTUDY_EXECUTOR=translate;UNDERSTUDY_TRANSLATE_AFTER=1")
endfunction()

# us_fuzzer(NAME SOURCE [LIBRARIES lib...]): with the fuzz preset a libFuzzer binary; elsewhere the same
# source replays its committed corpus (tests/fuzz/corpus/NAME) as an ordinary test.
function(us_fuzzer name source)
  cmake_parse_arguments(arg "" "" "LIBRARIES" ${ARGN})
  set(corpus "${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name}")
  if(US_FUZZ)
    add_executable(${name} ${source})
    target_link_libraries(${name} PRIVATE us_options ${arg_LIBRARIES})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(${name} ${source} "${PROJECT_SOURCE_DIR}/tests/support/fuzz_replay_main.cc")
    target_link_libraries(${name} PRIVATE us_options ${arg_LIBRARIES})
    add_test(NAME ${name} COMMAND ${name} "${corpus}")
    set_tests_properties(${name} PROPERTIES TIMEOUT 120 LABELS "fuzz-corpus")
  endif()
endfunction()
