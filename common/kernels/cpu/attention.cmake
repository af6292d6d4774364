# Attention over the paged KV store; included by this folder's CMakeLists.txt.

tandem_library(tandem_kernels_cpu_attention
  SRCS attention.cc attention_plan.cc attention_ref.cc attention_scratch.cc
       key_feedback.cc kv_append.cc
  DEPS tandem_kernels_cpu_thread_pool
  PRIVATE_DEPS PkgConfig::hwy)
target_compile_definitions(tandem_kernels_cpu_attention PRIVATE ${TANDEM_HWY_TARGETS})

tandem_library(tandem_kernels_cpu_attention_fixture
  SRCS attention_fixture.cc
  DEPS tandem_kernels_cpu_attention)

foreach(test attention key_feedback)
  tandem_test(${test}_test
    SRCS ${test}_test.cc
    DEPS tandem_kernels_cpu_attention_fixture PkgConfig::hwy)
  if(TARGET ${test}_test)
    target_compile_definitions(${test}_test PRIVATE ${TANDEM_HWY_TARGETS})
  endif()
endforeach()
