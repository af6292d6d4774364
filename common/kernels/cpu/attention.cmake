# Attention over the paged KV store; included by this folder's CMakeLists.txt.

tandem_library(tandem_kernels_cpu_attention
  SRCS attention.cc attention_plan.cc attention_ref.cc attention_scratch.cc kv_append.cc
  DEPS tandem_kernels_cpu_thread_pool
  PRIVATE_DEPS PkgConfig::hwy)

# SSE4 and SSSE3 serve processors older than 2013; they fall back to scalar code.
set(TANDEM_ATTENTION_TARGETS HWY_WANT_AVX3_DL "HWY_DISABLED_TARGETS=(HWY_SSSE3|HWY_SSE4)")
target_compile_definitions(tandem_kernels_cpu_attention PRIVATE ${TANDEM_ATTENTION_TARGETS})

tandem_library(tandem_kernels_cpu_attention_fixture
  SRCS attention_fixture.cc
  DEPS tandem_kernels_cpu_attention)

tandem_test(attention_test
  SRCS attention_test.cc
  DEPS tandem_kernels_cpu_attention_fixture PkgConfig::hwy)
if(TARGET attention_test)
  target_compile_definitions(attention_test PRIVATE ${TANDEM_ATTENTION_TARGETS})
endif()
