#pragma once
/// A flow of control that runs only when it is resumed and stops only where it pauses.
/// Two ways to the same end: a context of its own where the C library can switch them, which takes a
/// fraction of a microsecond; else a thread that takes turns, which sanitizers that watch stacks or
/// threads want, too.
#include <cstdint>
#include <functional>
#include <utility>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define SHAREDMEM_FIBER_THREADS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SHAREDMEM_FIBER_THREADS 1
#endif
#endif

#ifdef SHAREDMEM_FIBER_THREADS
#include <semaphore>
#include <thread>
#else
#include <ucontext.h>

#include <cstddef>
#include <memory>
#endif

namespace schedules {

/// Runs `body` from its start to its end each time it was resumed after an end.
/// Threads: `resume` from the thread that made it; `pause` only inside `body`, which lets no exception out.
class fiber {
 public:
  explicit fiber(std::function<void()> body);
  fiber(const fiber&) = delete;
  fiber& operator=(const fiber&) = delete;
  /// \pre it is not paused inside `body`.
  ~fiber();

  /// Runs until `body` pauses or ends.
  void resume();
  /// Back to who resumed it.
  void pause();
  /// Whether a switch costs microseconds.
#ifdef SHAREDMEM_FIBER_THREADS
  static constexpr bool is_slow = true;
#else
  static constexpr bool is_slow = false;
#endif
  /// True between a resume and the end of `body`.
  bool inside() const noexcept { return inside_; }

 private:
  void loop() {
    for (;;) {
      body_();
      inside_ = false;
      pause();
      if (stop_) return;
    }
  }

  std::function<void()> body_;
  bool inside_ = false;
  bool stop_ = false;
#ifdef SHAREDMEM_FIBER_THREADS
  std::binary_semaphore run_{0}, done_{0};
  std::thread thread_;
#else
  static constexpr std::size_t stack_bytes = 256 << 10;
  static void enter(unsigned high, unsigned low);
  std::unique_ptr<std::byte[]> stack_{new std::byte[stack_bytes]};
  ucontext_t self_{}, caller_{};
#endif
};

#ifdef SHAREDMEM_FIBER_THREADS

inline fiber::fiber(std::function<void()> body)
    : body_(std::move(body)), thread_([this] {
        run_.acquire();
        if (!stop_) loop();
      }) {}

inline fiber::~fiber() {
  stop_ = true;
  run_.release();
  thread_.join();
}

inline void fiber::resume() {
  inside_ = true;
  run_.release();
  done_.acquire();
}

inline void fiber::pause() {
  done_.release();
  run_.acquire();
}

#else

inline fiber::fiber(std::function<void()> body) : body_(std::move(body)) {
  getcontext(&self_);
  self_.uc_stack.ss_sp = stack_.get();
  self_.uc_stack.ss_size = stack_bytes;
  self_.uc_link = nullptr;
  // makecontext passes integers of the size of int only
  const auto address = reinterpret_cast<unsigned long long>(this);
  makecontext(&self_, reinterpret_cast<void (*)()>(&enter), 2, static_cast<unsigned>(address >> 32),
              static_cast<unsigned>(address));
}

inline fiber::~fiber() = default;

inline void fiber::enter(unsigned high, unsigned low) {
  const auto address = static_cast<unsigned long long>(high) << 32 | low;
  reinterpret_cast<fiber*>(static_cast<std::uintptr_t>(address))->loop();
}

inline void fiber::resume() {
  inside_ = true;
  swapcontext(&caller_, &self_);
}

inline void fiber::pause() { swapcontext(&self_, &caller_); }

#endif

}  // namespace schedules
