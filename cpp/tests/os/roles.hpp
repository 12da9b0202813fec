/// \file
/// Other processes for tests of the seam: the same program started anew, so that nothing is inherited and a
/// system without fork runs the very same tests.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "os/segment.hpp"

extern char** environ;  // NOLINT: POSIX declares it nowhere

namespace roles {

using arguments = std::vector<std::string>;
using role = std::function<int(const arguments&)>;

inline std::map<std::string, role>& all() {
  static std::map<std::string, role> known;
  return known;
}

/// Declares what a process of this name does; its value is the exit status.
struct declared {
  declared(const char* name, role work) { all().emplace(name, std::move(work)); }
};

/// Called by `main` first: runs the role that this process was started for, if it was.
inline bool play(int count, char** values, int& status) {
  if (count < 3 || std::string(values[1]) != "--role") return false;
  try {
    status = all().at(values[2])(arguments(values + 3, values + count));
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "in role %s: %s\n", values[2], failure.what());
    status = 99;
  }
  return true;
}

/// Tells the process that started this one that it has got as far as it was to get, and waits until it may
/// go on.
inline void say_ready_and_wait() {
  char byte = 1;
  if (::write(STDOUT_FILENO, &byte, 1) != 1) std::abort();
  while (::read(STDIN_FILENO, &byte, 1) > 0) {
  }
}

/// A process that plays a role; surely gone at the end of the scope.
class process {
 public:
  process(const char* name, const arguments& words) {
    int to[2], from[2];
    if (::pipe2(to, O_CLOEXEC) != 0 || ::pipe2(from, O_CLOEXEC) != 0) std::terminate();
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
    std::vector<std::string> text{"role", "--role", name};
    text.insert(text.end(), words.begin(), words.end());
    std::vector<char*> pointers;
    for (std::string& word : text) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    if (::posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, pointers.data(), environ) != 0)
      std::terminate();
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(to[0]);
    ::close(from[1]);
    to_ = to[1];
    from_ = from[0];
  }
  process(const process&) = delete;
  process& operator=(const process&) = delete;
  ~process() { kill(); }

  [[nodiscard]] std::uint32_t pid() const { return static_cast<std::uint32_t>(pid_); }

  /// False: it ended before it was ready.
  bool wait_until_ready() {
    char byte = 0;
    return ::read(from_, &byte, 1) == 1;
  }
  /// What it writes before it is ready. False: it ended before.
  bool read(void* to, std::size_t count) { return ::read(from_, to, count) == static_cast<ssize_t>(count); }
  void go_on() {
    if (to_ >= 0) ::close(to_);
    to_ = -1;
  }
  /// Exit status; negative: what ended it.
  int wait() {
    go_on();
    if (pid_ <= 0) return status_;
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    ::close(from_);
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    return status_;
  }
  /// Ends it at once, and waits until it has gone.
  void kill() {
    if (pid_ > 0) ::kill(pid_, SIGKILL);
    wait();
  }

 private:
  pid_t pid_ = -1;
  int to_ = -1, from_ = -1, status_ = 0;
};

/// A segment's name and tag as words for a role.
inline arguments words_of(const sharedmem::os::segment& s, std::uint64_t tag) {
  const sharedmem::segment_name name = s.name();
  return {std::to_string(static_cast<int>(name.kind)), std::to_string(name.id), std::to_string(name.pid),
          std::to_string(tag)};
}

inline sharedmem::os::segment open_from(const arguments& words) {
  const sharedmem::segment_name name{static_cast<sharedmem::backing>(std::stoi(words.at(0))),
                                     std::stoi(words.at(1)), std::stoi(words.at(2))};
  return sharedmem::os::segment::open(name, std::stoull(words.at(3)));
}

}  // namespace roles
