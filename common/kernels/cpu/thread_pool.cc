#include "common/kernels/cpu/thread_pool.h"

#include <atomic>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tandem::cpu {
namespace {

// About 30 us: longer than the scalar code between two loops of a step, shorter than
// what another process would miss.
constexpr int kSpins = 4000;

inline void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// A loop's number in the high half, the tasks not yet claimed in the low half: a thread
// that comes late cannot claim a task of the next loop.
constexpr uint64_t kTaskMask = 0xffffffffu;

}  // namespace

struct ThreadPool::State {
  // The present loop. Written before `work` is published.
  TaskRef task = TaskRef(kNothing);
  int32_t num_tasks = 0;

  alignas(64) std::atomic<uint64_t> work{0};       // loop << 32 | tasks not yet claimed
  alignas(64) std::atomic<int32_t> num_left{0};    // tasks not yet finished
  alignas(64) std::atomic<uint32_t> loop{0};       // what sleepers wait for
  std::atomic<int32_t> num_sleeping{0};
  std::atomic<bool> is_stopping{false};
  std::vector<std::thread> threads;

  static constexpr auto kNothing = [](int32_t, int32_t) {};

  // Runs tasks of `loop_number` until none is left to claim.
  void RunTasks(uint32_t loop_number, int32_t thread);
  void Worker(int32_t thread);
  // Waits for a loop after `seen`: spins, then sleeps.
  uint32_t WaitForLoop(uint32_t seen);
};

void ThreadPool::State::RunTasks(uint32_t loop_number, int32_t thread) {
  uint64_t current = work.load(std::memory_order_acquire);
  while ((current >> 32) == loop_number && (current & kTaskMask) != 0) {
    if (!work.compare_exchange_weak(current, current - 1, std::memory_order_acq_rel,
                                    std::memory_order_acquire)) {
      continue;
    }
    task(num_tasks - static_cast<int32_t>(current & kTaskMask), thread);
    num_left.fetch_sub(1, std::memory_order_acq_rel);
    current = work.load(std::memory_order_acquire);
  }
}

uint32_t ThreadPool::State::WaitForLoop(uint32_t seen) {
  for (int i = 0; i < kSpins; ++i) {
    const uint32_t now = loop.load(std::memory_order_acquire);
    if (now != seen) return now;
    Pause();
  }
  num_sleeping.fetch_add(1, std::memory_order_seq_cst);
  loop.wait(seen, std::memory_order_seq_cst);
  num_sleeping.fetch_sub(1, std::memory_order_seq_cst);
  return loop.load(std::memory_order_acquire);
}

void ThreadPool::State::Worker(int32_t thread) {
  uint32_t seen = 0;
  while (true) {
    seen = WaitForLoop(seen);
    if (is_stopping.load(std::memory_order_acquire)) return;
    RunTasks(seen, thread);
  }
}

ThreadPool::ThreadPool(int32_t num_threads)
    : num_threads_(num_threads), state_(std::make_unique<State>()) {
  for (int32_t thread = 1; thread < num_threads; ++thread) {
    state_->threads.emplace_back([this, thread] { state_->Worker(thread); });
  }
}

ThreadPool::~ThreadPool() {
  state_->is_stopping.store(true, std::memory_order_release);
  state_->loop.fetch_add(1, std::memory_order_seq_cst);
  state_->loop.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

void ThreadPool::Run(int32_t num_tasks, TaskRef task) {
  if (num_tasks <= 1 || num_threads_ == 1) {
    for (int32_t i = 0; i < num_tasks; ++i) task(i, 0);
    return;
  }
  State& state = *state_;
  // Nobody can claim anything of the last loop any more, and nobody runs one of its
  // tasks: these writes race with nothing.
  state.task = task;
  state.num_tasks = num_tasks;
  state.num_left.store(num_tasks, std::memory_order_relaxed);
  const uint32_t loop_number = state.loop.load(std::memory_order_relaxed) + 1;
  state.work.store(uint64_t{loop_number} << 32 | static_cast<uint32_t>(num_tasks),
                   std::memory_order_release);
  state.loop.store(loop_number, std::memory_order_seq_cst);
  if (state.num_sleeping.load(std::memory_order_seq_cst) > 0) state.loop.notify_all();
  state.RunTasks(loop_number, 0);
  while (state.num_left.load(std::memory_order_acquire) > 0) Pause();
}

}  // namespace tandem::cpu
