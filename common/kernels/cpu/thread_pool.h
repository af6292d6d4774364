// Threads that run one parallel loop at a time, for one model.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace tandem::cpu {

// A borrowed callable `void(int32_t task, int32_t thread)`: two words, no allocation.
class TaskRef {
 public:
  template <class Function>
  requires(!std::is_same_v<std::remove_cvref_t<Function>, TaskRef>)
      TaskRef(Function&& function)  // NOLINT(google-explicit-constructor)
      : object_(const_cast<void*>(static_cast<const void*>(&function))),
        call_([](void* object, int32_t task, int32_t thread) {
          (*static_cast<std::remove_reference_t<Function>*>(object))(task, thread);
        }) {}

  void operator()(int32_t task, int32_t thread) const { call_(object_, task, thread); }

 private:
  void* object_;
  void (*call_)(void*, int32_t, int32_t);
};

// Runs loops on `num_threads` threads, the caller among them. Each thread starts on its own
// run of neighbouring tasks, so that it reads memory in one direction, and then takes what
// others have left from the far end. A worker that finds nothing to do spins for some
// microseconds, then sleeps on a futex: a step is hundreds of short loops, but an idle
// model must leave its cores to the other.
//
// Run may be called by one thread at a time. Several pools may live in a process.
class ThreadPool {
 public:
  // Requires num_threads >= 1.
  explicit ThreadPool(int32_t num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Calls task(i, thread) once for each i in [0, num_tasks); `thread` is in
  // [0, num_threads). Returns when all are done. Which thread runs which task is
  // not fixed, so a task's result must depend on `i` alone.
  void Run(int32_t num_tasks, TaskRef task);

  int32_t num_threads() const { return num_threads_; }

 private:
  struct State;
  int32_t num_threads_;
  std::unique_ptr<State> state_;
};

}  // namespace tandem::cpu
