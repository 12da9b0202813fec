/// \file
/// The running program once more, as a process of its own, with a pipe to it and one from it: as POSIX or Windows has it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace roles {

/// Starts the program of this process with other arguments; it has certainly ended at the end of the scope.
class spawned {
 public:
  explicit spawned(std::vector<std::string> words);
  spawned(const spawned&) = delete;
  spawned& operator=(const spawned&) = delete;
  ~spawned() { kill(); }

  [[nodiscard]] std::uint32_t pid() const;
  /// What it writes to its output. False: it ended before.
  bool read(void* to, std::size_t count);
  /// Writes to its input. False: it has ended.
  bool write(const void* from, std::size_t count);
  /// Its input ends.
  void close_input();
  /// Waits for its end: the exit status, or something negative if it was ended. Once it has ended, the same again.
  int wait();
  /// Kills it at once, and waits for its end.
  void kill();

 private:
#ifdef _WIN32
  void* process_ = nullptr;
  void *to_ = nullptr, *from_ = nullptr;
  std::uint32_t pid_ = 0;
#else
  int pid_ = -1, to_ = -1, from_ = -1;
#endif
  int status_ = 0;
};

/// In such a process: its output and its input. False: the other end is closed.
bool write_output(const void* from, std::size_t count);
bool read_input(void* to, std::size_t count);

/// From now on a crash ends this process without a dialog of the system.
void crash_quietly();

}  // namespace roles

#ifdef _WIN32
#include "spawned_windows.hpp"
#else
#include "spawned_posix.hpp"
#endif
