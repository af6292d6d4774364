// Writes what the engine made for its clients, on a thread of its own.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "services/gateway/stream_queue.h"

namespace tandem::gateway {

// A message costs gRPC 15 to 30 us of the thread that sends it and as much of others, so those
// of a large batch would hold up the next step by up to a millisecond. The engine posts its
// streams instead, and flushes once a step, which is one wake-up at most. All methods are
// thread-safe.
class StreamWriter {
 public:
  using Stream = StreamQueue::Stream;

  // Messages a second for all streams together, but for what cannot wait; 0: no limit.
  explicit StreamWriter(double messages_per_second = 0.0);
  ~StreamWriter();  // what is still posted is not written

  // `stream` has something to write once Flush is called.
  void Post(std::shared_ptr<Stream> stream);
  // A stream that was posted has something that cannot wait for its turn.
  void Hurry();
  // What was posted is written now, or when its turn comes.
  void Flush();

 private:
  void Run();

  std::mutex mutex_;  // of what follows
  std::condition_variable flushed_;
  std::vector<std::shared_ptr<Stream>> posted_;
  absl::Duration next_pass_ = -absl::InfiniteDuration();  // of the queue
  bool is_urgent_ = false;
  bool is_flushed_ = false;
  bool is_stopping_ = false;

  StreamQueue queue_;  // the thread's
  std::thread thread_;
};

}  // namespace tandem::gateway
