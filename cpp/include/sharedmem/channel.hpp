#pragma once
/// \file
/// What a pipe or socket that messages are written to says about its other end.
///
/// | question                          | pipe                                   | socket pair (AF_UNIX, SOCK_STREAM)      |
/// | --------------------------------- | -------------------------------------- | --------------------------------------- |
/// | nobody can read any more?         | POLLERR on a writing end               | POLLHUP on the other end                |
/// | how much has nobody read?         | FIONREAD on a writing end, also then   | SIOCOUTQ, in truesize; 0 afterwards     |
/// | what is it that nobody has read?  | open it again for reading, tee(2)      | gone: the kernel purges it with the end |
///
/// A descriptor on its way in an SCM_RIGHTS message counts as a reader. Sources: fs/pipe.c, pipe_poll, pipe_ioctl,
/// fifo_open (/proc/PID/fd/N opens an unnamed pipe anew); net/unix/af_unix.c, unix_poll, unix_release_sock. Tried on
/// Linux 6.18.
#include <cstddef>
#include <cstdint>
#include <vector>

#include <sharedmem/export.hpp>

namespace sharedmem {

/// The writing end of an unnamed pipe, or an end of a local socket.
/// Ownership: none until `keep`; whoever owns the descriptor may close it, and somebody else's may get its number:
/// then nothing is told.
/// Threads: const members may run at once.
class SHAREDMEM_API channel {
 public:
  channel() noexcept = default;
  /// \post  `!is_pipe() && !is_socket()` if the descriptor is something else.
  explicit channel(int fd) noexcept;
  channel(channel&& from) noexcept;
  channel& operator=(channel&& from) noexcept;
  ~channel();

  /// Goes on looking at a pipe though the descriptor is about to be closed, by one of its own that is no end of it
  /// (O_PATH): readers see the end as ever. Once the last reader has gone nothing is `unread` then. False: it
  /// cannot.
  bool keep() noexcept;

  bool is_pipe() const noexcept { return kind_ == kind::pipe; }
  bool is_kept() const noexcept { return kept_; }
  bool is_socket() const noexcept { return kind_ == kind::socket; }
  /// Nobody has the other end open, and nobody can get it.
  bool abandoned() const noexcept;
  /// Everything that was written has been read, or is lost. False if that cannot be told.
  bool drained() const noexcept;
  /// The bytes of an abandoned pipe that nobody has read, a part of them where the system gives no more; they stay
  /// there for others who write to it.
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
