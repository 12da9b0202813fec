/// \file
/// Pipes and local sockets, as far as somebody who writes to them can look at them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sharedmem::os {

struct channel_status {
  bool pipe = false;    // unnamed
  bool socket = false;  // AF_UNIX, SOCK_STREAM
  std::uint64_t inode = 0;
};
channel_status channel_look(int fd) noexcept;
/// Nobody has the other end open.
bool channel_abandoned(int fd, bool pipe) noexcept;
/// Nothing that was written is still to be read.
bool channel_drained(int fd, bool pipe) noexcept;
/// A descriptor that names the pipe and is no end of it; -1: none to be had.
int pipe_name(int fd) noexcept;
/// A writing end of the pipe that `name` names; -1: none to be had.
int pipe_open(int name) noexcept;
/// What nobody has read of an abandoned pipe; a part of it where the system gives no more.
/// \throws std::bad_alloc
std::vector<std::byte> pipe_unread(int fd);
void file_close(int fd) noexcept;

}  // namespace sharedmem::os
