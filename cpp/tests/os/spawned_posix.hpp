/// \file
/// POSIX: what spawned.hpp declares. Included by it alone.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <exception>

extern char** environ;  // NOLINT: POSIX declares it nowhere

namespace roles {

inline spawned::spawned(std::vector<std::string> words) {
  int to[2], from[2];
  if (::pipe2(to, O_CLOEXEC) != 0 || ::pipe2(from, O_CLOEXEC) != 0) std::terminate();
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
  words.insert(words.begin(), "role");
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  if (::posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, pointers.data(), environ) != 0)
    std::terminate();
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(to[0]);
  ::close(from[1]);
  to_ = to[1];
  from_ = from[0];
}

inline std::uint32_t spawned::pid() const { return static_cast<std::uint32_t>(pid_); }

inline bool spawned::read(void* to, std::size_t count) {
  return ::read(from_, to, count) == static_cast<ssize_t>(count);
}

inline bool spawned::write(const void* from, std::size_t count) {
  // The process may have died already, by a fault point above all: that is an answer, and must not end this one.
  const auto before = ::signal(SIGPIPE, SIG_IGN);
  const bool written = ::write(to_, from, count) == static_cast<ssize_t>(count);
  ::signal(SIGPIPE, before);
  return written;
}

inline void spawned::close_input() {
  if (to_ >= 0) ::close(to_);
  to_ = -1;
}

inline int spawned::wait() {
  close_input();
  if (pid_ <= 0) return status_;
  int status = 0;
  ::waitpid(pid_, &status, 0);
  pid_ = -1;
  ::close(from_);
  status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return status_;
}

inline void spawned::kill() {
  if (pid_ > 0) ::kill(pid_, SIGKILL);
  wait();
}

inline bool write_output(const void* from, std::size_t count) {
  return ::write(STDOUT_FILENO, from, count) == static_cast<ssize_t>(count);
}

inline bool read_input(void* to, std::size_t count) {
  return ::read(STDIN_FILENO, to, count) == static_cast<ssize_t>(count);
}

inline void crash_quietly() {}

}  // namespace roles
