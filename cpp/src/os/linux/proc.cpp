/// \file
/// Linux: processes, files of /proc, and other small helpers.
#include "os/linux/proc.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdio>
#include <cstring>

#include <sharedmem/error.hpp>

#include "os/identity.hpp"

namespace sharedmem::os {
namespace {

ssize_t read_again(int fd, char* to, std::size_t bytes) noexcept {
  for (;;) {
    const ssize_t got = ::read(fd, to, bytes);
    if (got >= 0 || errno != EINTR) return got;
  }
}

}  // namespace

int open_quietly(const char* name, int flags) noexcept {
  for (;;) {
    const int fd = ::open(name, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd >= 0 || errno != EINTR) return fd;
  }
}

std::uint32_t pid() noexcept { return static_cast<std::uint32_t>(::getpid()); }

int probe(std::uint32_t pid) noexcept {
  // 0 and negative numbers mean groups
  if (pid == 0 || pid > static_cast<std::uint32_t>(INT_MAX)) return EINVAL;
  return ::kill(static_cast<pid_t>(pid), 0) == 0 ? 0 : errno;
}

path proc_path(std::uint32_t pid, const char* what) noexcept {
  path made{};  // not by snprintf, which is not async-signal-safe
  char* at = std::copy_n("/proc/", 6, made.text);
  char* const end = made.text + sizeof made.text - 1;
  at = std::to_chars(at, end, pid).ptr;
  if (at != end) *at++ = '/';
  std::copy_n(what, std::min<std::size_t>(std::strlen(what), static_cast<std::size_t>(end - at)), at);
  return made;
}

std::string_view read_file(const char* name, char* room, std::size_t bytes) noexcept {
  const int fd = open_quietly(name, O_RDONLY);
  if (fd < 0) return {};
  std::size_t size = 0;
  while (size < bytes) {
    const ssize_t got = read_again(fd, room + size, bytes - size);
    if (got < 0) size = 0;
    if (got <= 0) break;
    size += static_cast<std::size_t>(got);
  }
  ::close(fd);
  return {room, size};
}

std::string_view read_link(const char* name, char* room, std::size_t bytes) noexcept {
  const ssize_t got = ::readlink(name, room, bytes);
  if (got <= 0 || static_cast<std::size_t>(got) >= bytes) return {};
  return {room, static_cast<std::size_t>(got)};
}

std::uint64_t inode_of(const char* name) noexcept {
  struct stat record{};
  return ::stat(name, &record) == 0 ? record.st_ino : 0;
}

std::uint64_t steady(std::uint64_t (*look)(const char*) noexcept, const char* name) noexcept {
  const std::uint64_t first = look(name);
  return look(name) == first ? first : 0;
}

lines::lines(const char* name) noexcept : fd_{open_quietly(name, O_RDONLY)} {}

lines::~lines() {
  if (fd_ >= 0) ::close(fd_);
}

bool lines::fill() noexcept {
  if (end_ || fd_ < 0) return false;
  std::memmove(text_, text_ + begin_, size_ - begin_);
  size_ -= begin_;
  begin_ = 0;
  const ssize_t got = read_again(fd_, text_ + size_, sizeof text_ - size_);
  failed_ = got < 0;
  end_ = got <= 0;
  if (got > 0) size_ += static_cast<std::size_t>(got);
  return got > 0;
}

bool lines::next(std::string_view& line) noexcept {
  for (std::size_t searched = 0;;) {
    const char* const from = text_ + begin_ + searched;
    const std::size_t left = size_ - begin_ - searched;
    const void* const found = left == 0 ? nullptr : std::memchr(from, '\n', left);
    const bool full = found == nullptr && size_ - begin_ == sizeof text_;
    if (found != nullptr || full) {
      const char* const end = found == nullptr ? text_ + size_ : static_cast<const char*>(found);
      const auto length = static_cast<std::size_t>(end - text_) - begin_;
      const bool rest_of_cut = cut_;
      line = {text_ + begin_, length};
      begin_ += full ? length : length + 1;
      cut_ = full;
      if (!rest_of_cut) return true;
      searched = 0;
      continue;
    }
    searched = size_ - begin_;
    if (!fill()) break;
  }
  line = {text_ + begin_, size_ - begin_};  // the last one, without an end
  begin_ = size_;
  return !line.empty() && !cut_;
}

std::uint64_t address_space_limit() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
  return limit.rlim_cur;
}

system_memory ask_sysinfo() noexcept {
  struct sysinfo record{};
  if (::sysinfo(&record) != 0) return {};
  const std::uint64_t unit = record.mem_unit == 0 ? 1 : record.mem_unit;
  return {.available = (std::uint64_t{record.freeram} + record.freeswap) * unit,
          .total = std::uint64_t{record.totalram} * unit};
}

std::string_view machine_name(char* room, std::size_t bytes) noexcept {
  struct utsname names{};
  if (::uname(&names) != 0) return {};
  const int size = std::snprintf(room, bytes, "%s %s %s", names.nodename, names.release, names.version);
  if (size <= 0) return {};
  return {room, static_cast<std::size_t>(size) < bytes ? static_cast<std::size_t>(size) : bytes - 1};
}

}  // namespace sharedmem::os
