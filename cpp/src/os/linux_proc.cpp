/// \file
/// Linux: processes, files of /proc, odds and ends.
#include <dirent.h>
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
#include <memory>

#include <sharedmem/error.hpp>

#include "os.hpp"

namespace sharedmem::os {
namespace {

int open_quietly(const char* name, int flags) noexcept {
  for (;;) {
    const int fd = ::open(name, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd >= 0 || errno != EINTR) return fd;
  }
}

ssize_t read_again(int fd, char* to, std::size_t bytes) noexcept {
  for (;;) {
    const ssize_t got = ::read(fd, to, bytes);
    if (got >= 0 || errno != EINTR) return got;
  }
}

// Whether a link of /proc/PID/fd shows the memfd `name`.
bool links_to(const char* link, std::string_view name) noexcept {
  constexpr std::string_view before = "/memfd:";
  constexpr std::string_view after = " (deleted)";
  char room[128];
  std::string_view target = read_link(link, room, sizeof room);
  if (!target.starts_with(before) || !target.ends_with(after)) return false;
  target.remove_prefix(before.size());
  return target.size() == name.size() + after.size() && target.starts_with(name);
}

// Opens through the link, then asks our own descriptor: the other may have changed meanwhile.
int open_if(const char* link, std::string_view name) noexcept {
  if (!links_to(link, name)) return -1;
  const int fd = open_quietly(link, O_RDWR);
  if (fd < 0) return -1;
  path own{};
  std::snprintf(own.text, sizeof own.text, "/proc/self/fd/%d", fd);
  if (links_to(own.text, name)) return fd;
  ::close(fd);
  return -1;
}

struct directory_closer {
  void operator()(DIR* directory) const noexcept { ::closedir(directory); }
};
using directory = std::unique_ptr<DIR, directory_closer>;

path descriptor_link(std::int32_t pid, std::int32_t fd) noexcept {
  path made{};
  std::snprintf(made.text, sizeof made.text, "/proc/%ld/fd/%ld", static_cast<long>(pid),
                static_cast<long>(fd));
  return made;
}

bool is_number(const char* text) noexcept {
  return *text != '\0' && std::strspn(text, "0123456789") == std::strlen(text);
}

}  // namespace

bool none_left(int code) noexcept { return code == EMFILE || code == ENFILE; }

int memfd_open(std::int32_t pid, std::int32_t fd, std::string_view name) noexcept {
  errno = 0;
  return pid > 0 && fd >= 0 ? open_if(descriptor_link(pid, fd).text, name) : -1;
}

std::uint64_t memfd_inode(std::int32_t pid, std::int32_t fd) noexcept {
  return pid > 0 && fd >= 0 ? inode_of(descriptor_link(pid, fd).text) : 0;
}

int memfd_search(std::string_view name) {
  errno = 0;
  const directory processes{::opendir("/proc")};
  if (!processes) return -1;
  while (const dirent* process = ::readdir(processes.get())) {
    if (!is_number(process->d_name)) continue;
    const std::string folder = std::string("/proc/") + process->d_name + "/fd/";
    const directory files{::opendir(folder.c_str())};
    if (!files && none_left(errno)) return -1;
    if (!files) continue;  // another user's, or gone
    while (const dirent* file = ::readdir(files.get())) {
      if (!is_number(file->d_name)) continue;
      const int fd = open_if((folder + file->d_name).c_str(), name);
      if (fd >= 0 || none_left(errno)) return fd;
    }
  }
  return -1;
}

std::uint64_t sysv_resident(int id) noexcept {
  // key shmid perms size cpid lpid nattch uid gid cuid cgid atime dtime ctime rss swap
  constexpr int id_field = 1;
  constexpr int rss_field = 14;
  constexpr int swap_field = 15;
  lines table{"/proc/sysvipc/shm"};
  std::string_view line;
  while (table.next(line)) {
    std::uint64_t sum = 0;
    const char* at = line.data();
    const char* const end = at + line.size();
    for (int field = 0; at != end; ++field) {
      while (at != end && *at == ' ') ++at;
      const bool negative = at != end && *at == '-';  // a key above 2^31
      if (negative) ++at;
      std::uint64_t value = 0;
      const auto [next, failure] = std::from_chars(at, end, value);
      if (failure != std::errc{}) break;  // the heading
      at = next;
      if (field == id_field && value != static_cast<std::uint64_t>(id)) break;
      if (field == rss_field || field == swap_field) sum += value;
      if (field == swap_field) return sum;
    }
  }
  return 0;
}

std::uint32_t pid() noexcept { return static_cast<std::uint32_t>(::getpid()); }

std::uint32_t effective_user() noexcept { return ::geteuid(); }

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

void random_bytes(void* out, std::size_t bytes) {
  auto* to = static_cast<char*>(out);
  std::size_t done = 0;
  while (done < bytes) {
    const ssize_t got = ::getrandom(to + done, bytes - done, 0);
    if (got > 0) {
      done += static_cast<std::size_t>(got);
    } else if (errno != EINTR) {
      break;
    }
  }
  if (done == bytes) return;
  const int code = errno;  // ENOSYS, or a sandbox
  const std::size_t left = bytes - done;
  if (read_file("/dev/urandom", to + done, left).size() != left) {
    throw error(code, "getrandom", std::to_string(bytes) + " bytes");
  }
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
