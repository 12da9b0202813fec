/// Pipes and local sockets: what their writer can find out about them.
#include <cerrno>
#include <cstdio>

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "os/channel.hpp"

namespace sharedmem::os {
namespace {

/// Closes a descriptor at the end of a block.
class descriptor {
 public:
  explicit descriptor(int fd) noexcept : fd_{fd} {}
  descriptor(const descriptor&) = delete;
  descriptor& operator=(const descriptor&) = delete;
  ~descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const noexcept { return fd_; }

 private:
  int fd_;
};

/// Opens again what a descriptor refers to.
int open_again(int fd, int flags) noexcept {
  char name[32];
  std::snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  return ::open(name, flags | O_CLOEXEC);
}

}  // namespace

channel_status channel_look(int fd) noexcept {
  channel_status found;
  struct stat status;
  if (fd < 0 || ::fstat(fd, &status) != 0) return found;
  found.inode = status.st_ino;
  if (S_ISFIFO(status.st_mode)) {
    // A named pipe can be opened for reading by its name at any time; an unnamed one lies in a file system of its own.
    struct statfs system;
    found.pipe = ::fstatfs(fd, &system) == 0 && system.f_type == PIPEFS_MAGIC;
  } else if (S_ISSOCK(status.st_mode)) {
    int domain = 0, type = 0;
    socklen_t size = sizeof domain;
    found.socket = ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX &&
                   ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
  }
  return found;
}

bool channel_abandoned(int fd, bool pipe) noexcept {
  pollfd asked{fd, 0, 0};  // POLLERR and POLLHUP are always reported
  return ::poll(&asked, 1, 0) == 1 && (asked.revents & (pipe ? POLLERR : POLLHUP)) != 0;
}

bool channel_drained(int fd, bool pipe) noexcept {
  int bytes = -1;
  return ::ioctl(fd, pipe ? FIONREAD : SIOCOUTQ, &bytes) == 0 && bytes == 0;
}

int pipe_name(int fd) noexcept { return open_again(fd, O_PATH); }

int pipe_open(int name) noexcept { return open_again(name, O_WRONLY | O_NONBLOCK); }

std::vector<std::byte> pipe_unread(int fd) {
  // While this is open other writers get no EPIPE: what they write meanwhile lies unread in the pipe, too.
  const descriptor source(open_again(fd, O_RDONLY | O_NONBLOCK));
  int ends[2];
  if (source.get() < 0 || ::pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0) return {};
  const descriptor copy(ends[0]), to(ends[1]);
  const int capacity = ::fcntl(fd, F_GETPIPE_SZ);
  if (capacity <= 0) return {};
  ::fcntl(to.get(), F_SETPIPE_SZ, capacity);  // refused: the copy is a part
  const ssize_t copied = ::tee(source.get(), to.get(), static_cast<std::size_t>(capacity), SPLICE_F_NONBLOCK);
  if (copied <= 0) return {};
  std::vector<std::byte> bytes(static_cast<std::size_t>(copied));
  std::size_t read = 0;
  while (read < bytes.size()) {
    const ssize_t n = ::read(copy.get(), bytes.data() + read, bytes.size() - read);
    if (n <= 0) break;
    read += static_cast<std::size_t>(n);
  }
  bytes.resize(read);
  return bytes;
}

}  // namespace sharedmem::os
