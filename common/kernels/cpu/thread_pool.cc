#include "common/kernels/cpu/thread_pool.h"

#include <atomic>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tandem::cpu {
namespace {

// About 40 us: longer than the scalar code between two loops of a step, shorter than
// what another process would miss.
constexpr int kSpins = 4000;

inline void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// Tasks [begin, end) that nobody has claimed yet. One word, so that its owner may take
// from the front while others take from the back.
struct alignas(64) TaskRange {
  std::atomic<uint64_t> word{0};  // end << 32 | begin

  void Set(int32_t begin, int32_t end) {
    word.store(uint64_t{static_cast<uint32_t>(end)} << 32 | static_cast<uint32_t>(begin),
               std::memory_order_release);
  }

  // Claims the first task, or the last one; -1 when there is none.
  template <bool kFirst>
  int32_t Claim() {
    uint64_t current = word.load(std::memory_order_acquire);
    while (true) {
      const auto begin = static_cast<uint32_t>(current);
      const auto end = static_cast<uint32_t>(current >> 32);
      if (begin >= end) return -1;
      const uint64_t next = kFirst ? current + 1 : current - (uint64_t{1} << 32);
      if (word.compare_exchange_weak(current, next, std::memory_order_acq_rel,
                                     std::memory_order_acquire)) {
        return static_cast<int32_t>(kFirst ? begin : end - 1);
      }
    }
  }
};

}  // namespace

struct ThreadPool::State {
  explicit State(int32_t num_threads) : ranges(static_cast<size_t>(num_threads)) {}

  // Runs tasks until none is left to claim: first the thread's own, then others'.
  void RunTasks(int32_t thread);
  void Worker(int32_t thread);
  // Waits for a loop after `seen`: spins, then sleeps.
  uint32_t WaitForLoop(uint32_t seen);
  // Waits until all tasks are done: spins, then sleeps.
  void WaitForTasks();

  // The present loop. Written before its ranges, and read only with a claimed task: the
  // loop cannot end before that task does.
  TaskRef task = TaskRef(kNothing);

  std::vector<TaskRange> ranges;                 // one a thread
  alignas(64) std::atomic<int32_t> num_left{0};  // tasks not yet finished
  std::atomic<bool> caller_sleeps{false};
  alignas(64) std::atomic<uint32_t> loop{0};  // what sleepers wait for
  std::atomic<int32_t> num_sleeping{0};
  std::atomic<bool> is_stopping{false};
  std::vector<std::thread> threads;

  static constexpr auto kNothing = [](int32_t, int32_t) {};
};

void ThreadPool::State::RunTasks(int32_t thread) {
  int32_t num_done = 0;
  const auto run = [&](int32_t index) {
    task(index, thread);
    ++num_done;
  };
  const size_t own = static_cast<size_t>(thread);
  for (int32_t i; (i = ranges[own].Claim<true>()) >= 0;) run(i);
  for (size_t other = 1; other < ranges.size(); ++other) {
    TaskRange& range = ranges[(own + other) % ranges.size()];
    for (int32_t i; (i = range.Claim<false>()) >= 0;) run(i);
  }
  if (num_done == 0) return;
  const int32_t left = num_left.fetch_sub(num_done, std::memory_order_seq_cst) - num_done;
  if (left == 0 && caller_sleeps.load(std::memory_order_seq_cst)) num_left.notify_all();
}

void ThreadPool::State::WaitForTasks() {
  for (int i = 0; i < kSpins; ++i) {
    if (num_left.load(std::memory_order_acquire) == 0) return;
    Pause();
  }
  caller_sleeps.store(true, std::memory_order_seq_cst);
  for (int32_t left; (left = num_left.load(std::memory_order_seq_cst)) > 0;) num_left.wait(left);
  caller_sleeps.store(false, std::memory_order_relaxed);
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
    RunTasks(thread);
  }
}

ThreadPool::ThreadPool(int32_t num_threads)
    : num_threads_(num_threads), state_(std::make_unique<State>(num_threads)) {
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
  // All tasks of the last loop are done and none can be claimed: a thread that is late
  // finds nothing, or a task of this loop.
  state.task = task;
  state.num_left.store(num_tasks, std::memory_order_relaxed);
  for (int32_t thread = 0; thread < num_threads_; ++thread) {
    const auto first_of = [&](int32_t t) {
      return static_cast<int32_t>(int64_t{num_tasks} * t / num_threads_);
    };
    state.ranges[static_cast<size_t>(thread)].Set(first_of(thread), first_of(thread + 1));
  }
  state.loop.fetch_add(1, std::memory_order_seq_cst);
  if (state.num_sleeping.load(std::memory_order_seq_cst) > 0) state.loop.notify_all();
  state.RunTasks(0);
  state.WaitForTasks();
}

}  // namespace tandem::cpu
