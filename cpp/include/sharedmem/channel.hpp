#pragma once
/// \file
/// What a pipe or socket tells its writer about the other end.
///
/// | question                          | pipe                                   | socket pair (AF_UNIX, SOCK_STREAM)      |
/// | --------------------------------- | -------------------------------------- | --------------------------------------- |
/// | has it no reader any more?        | POLLERR on a writing end               | POLLHUP on the other end                |
/// | how many bytes are unread?        | FIONREAD on a writing end, also then   | SIOCOUTQ, in truesize; 0 afterwards     |
/// | which bytes are unread?           | open it again for reading, tee(2)      | lost: the kernel purges it with the end |
///
/// A descriptor on its way in an SCM_RIGHTS message counts as a reader. Sources: fs/pipe.c, pipe_poll, pipe_ioctl,
/// fifo_open (opening /proc/PID/fd/N gives a new end of an unnamed pipe); net/unix/af_unix.c, unix_poll,
/// unix_release_sock. Tested on Linux 6.18.
#include <cstddef>
#include <cstdint>
#include <vector>

#include <sharedmem/export.hpp>

namespace sharedmem {

/// The writing end of an unnamed pipe, or an end of a local socket.
/// Ownership: none until `keep`. The owner of the descriptor may close it, and another file may get its number:
/// then nothing is reported.
/// Threads: const members may run at once.
class SHAREDMEM_API channel {
 public:
  channel() noexcept = default;
  /// \post  `!is_pipe() && !is_socket()` if the descriptor is something else.
  explicit channel(int fd) noexcept;
  channel(channel&& from) noexcept;
  channel& operator=(channel&& from) noexcept;
  ~channel();

  /// Keeps watching a pipe although the descriptor is about to be closed, by a descriptor of its own that is not an end
  /// of the pipe (O_PATH), so that readers still see the end close. Once the last reader is gone nothing is `unread`
  /// then. False: this is not possible.
  bool keep() noexcept;

  bool is_pipe() const noexcept { return kind_ == kind::pipe; }
  bool is_kept() const noexcept { return kept_; }
  bool is_socket() const noexcept { return kind_ == kind::socket; }
  /// No process has the other end open, and none can get it.
  bool abandoned() const noexcept;
  /// Everything that was written has been read, or is lost. False if this cannot be determined.
  bool drained() const noexcept;
  /// The unread bytes of an abandoned pipe, or a part of them if the system returns no more; they stay
  /// in the pipe.
  /// \throws std::bad_alloc
  std::vector<std::byte> unread() const;

 private:
  enum class kind : std::uint8_t { other, pipe, socket };
  bool same() const noexcept;

  int fd_ = -1;
  bool kept_ = false;
  kind kind_ = kind::other;
  std::uint64_t inode_ = 0;
};

}  // namespace sharedmem
