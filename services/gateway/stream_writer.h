// Writes what the engine made for its clients, on a thread of its own.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/time/time.h"

namespace tandem::gateway {

// A message costs gRPC 15 to 30 us of the thread that sends it, so those of a large batch would
// hold up the next step by up to a millisecond. The engine posts its streams instead, and
// flushes once a step, which is one wake-up. All methods are thread-safe.
class StreamWriter {
 public:
  class Stream {
   public:
    virtual ~Stream() = default;
    // Writes what is due at `now`, of the steady clock; does not wait. When it wants to be
    // asked again; InfiniteDuration: when it is posted.
    virtual absl::Duration Write(absl::Duration now) = 0;
  };

  StreamWriter();
  ~StreamWriter();  // what is still posted is not written

  // `stream` has something to write once Flush is called.
  void Post(std::shared_ptr<Stream> stream);
  // What was posted is written now.
  void Flush();

 private:
  void Run();

  std::mutex mutex_;  // of what follows
  std::condition_variable flushed_;
  std::vector<std::shared_ptr<Stream>> posted_;
  bool is_flushed_ = false;
  bool is_stopping_ = false;

  std::thread thread_;
};

}  // namespace tandem::gateway
