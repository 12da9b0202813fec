/// \file
/// Pipes and local sockets: what their writer can find out about them.
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
/// No process has the other end open.
bool channel_abandoned(int fd, bool pipe) noexcept;
/// Nothing that was written is still to be read.
bool channel_drained(int fd, bool pipe) noexcept;
/// A descriptor that refers to the pipe but is not an end of it; -1: impossible.
int pipe_name(int fd) noexcept;
/// A writing end of the pipe to which `name` refers; -1: impossible.
int pipe_open(int name) noexcept;
/// The unread bytes of an abandoned pipe, or a part of them if the system returns no more.
/// \throws std::bad_alloc
std::vector<std::byte> pipe_unread(int fd);
void file_close(int fd) noexcept;

}  // namespace sharedmem::os
