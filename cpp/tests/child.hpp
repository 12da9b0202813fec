/// \file
/// A forked child that runs a function, and has certainly ended at the end of the scope.
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <utility>

/// Values that one process hands to another.
class channel {
 public:
  channel() {
    if (::pipe(ends_) != 0) std::terminate();
  }
  channel(const channel&) = delete;
  channel& operator=(const channel&) = delete;
  ~channel() {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  template <class T>
  void put(const T& value) {
    if (::write(ends_[1], &value, sizeof value) != sizeof value) std::terminate();
  }
  template <class T>
  T get() {
    T value{};
    if (::read(ends_[0], &value, sizeof value) != sizeof value) std::terminate();
    return value;
  }
  /// From now on `try_get` ends when no other process can put any more.
  void close_sending() {
    ::close(ends_[1]);
    ends_[1] = -1;
  }
  /// False: nothing is left. \pre  close_sending() was called.
  template <class T>
  bool try_get(T& value) {
    return ::read(ends_[0], &value, sizeof value) == sizeof value;
  }

 private:
  int ends_[2];
};

/// In a child's function: if the condition is false, the line is printed and the child's exit status is 1.
#define MUST(...) \
  do { \
    if (!(__VA_ARGS__)) { \
      std::fprintf(stderr, "line %d: %s\n", __LINE__, #__VA_ARGS__); \
      return 1; \
    } \
  } while (false)

/// A function's process. It ends with the function's value as exit code, 99 for an exception.
class child {
 public:
  template <class F>
  explicit child(F&& work) {
    std::fflush(nullptr);
    pid_ = ::fork();
    if (pid_ != 0) return;
    int code = 99;
    try {
      code = std::forward<F>(work)();
    } catch (const std::exception& failure) {
      std::fprintf(stderr, "in the child: %s\n", failure.what());
    }
    ::_exit(code);
  }
  child(const child&) = delete;
  child& operator=(const child&) = delete;
  ~child() { kill(); }

  [[nodiscard]] pid_t pid() const { return pid_; }

  /// Exit code; the negative signal number that ended it.
  int wait() {
    if (pid_ <= 0) return code_;
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    code_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    return code_;
  }
  /// Waits until it has ended, and leaves it a zombie.
  void wait_for_zombie() {
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT);
  }
  void kill() {
    if (pid_ > 0) ::kill(pid_, SIGKILL);
    wait();
  }

 private:
  pid_t pid_ = -1;
  int code_ = 0;
};

/// For a child that waits to be killed.
[[noreturn]] inline void sleep_for_ever() {
  for (;;) ::pause();
}
