#include <sharedmem/channel.hpp>

#include <utility>

#include "os/channel.hpp"

namespace sharedmem {

channel::channel(int fd) noexcept : fd_{fd} {
  const os::channel_status found = os::channel_look(fd);
  kind_ = found.pipe ? kind::pipe : found.socket ? kind::socket : kind::other;
  inode_ = found.inode;
}

channel::channel(channel&& from) noexcept
    : fd_{from.fd_}, kept_{std::exchange(from.kept_, false)}, kind_{from.kind_}, inode_{from.inode_} {}

channel& channel::operator=(channel&& from) noexcept {
  std::swap(fd_, from.fd_);
  std::swap(kept_, from.kept_);
  std::swap(kind_, from.kind_);
  std::swap(inode_, from.inode_);
  return *this;
}

channel::~channel() {
  if (kept_) os::file_close(fd_);
}

bool channel::keep() noexcept {
  if (!is_pipe() || kept_ || !same()) return false;
  const int own = os::pipe_name(fd_);
  if (own < 0) return false;
  fd_ = own;
  kept_ = true;
  return true;
}

bool channel::same() const noexcept { return kind_ != kind::other && os::channel_look(fd_).inode == inode_; }

bool channel::abandoned() const noexcept {
  if (!same()) return false;
  if (!kept_) return os::channel_abandoned(fd_, is_pipe());
  const int end = os::pipe_open(fd_);  // a writer for a moment; readers at the end of the pipe see it again
  if (end < 0) return false;
  const bool answer = os::channel_abandoned(end, true);
  os::file_close(end);
  return answer;
}

bool channel::drained() const noexcept { return !kept_ && same() && os::channel_drained(fd_, is_pipe()); }

std::vector<std::byte> channel::unread() const {
  if (!is_pipe() || kept_ || !abandoned()) return {};
  return os::pipe_unread(fd_);
}

}  // namespace sharedmem
