/// \file
/// Linux: memfd segments.
#include "os/linux/memfd.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include <sharedmem/error.hpp>

#include "os/linux/proc.hpp"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U  // Linux 6.3, newer than the C libraries that this is built with
#endif

namespace sharedmem::os {
namespace {

std::string fd_text(int fd, std::size_t bytes) {
  return "descriptor " + std::to_string(fd) + ", " + bytes_text(bytes);
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

// Opens through the link, then examines our own descriptor: the other one may have changed meanwhile.
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

int memfd_create(const std::string& name, std::size_t bytes) {
  // By number: the first C libraries with a wrapper are younger than the call. A kernel may demand
  // the no-exec seal, an older one does not know it.
  constexpr unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  long fd = ::syscall(SYS_memfd_create, name.c_str(), flags | MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL) fd = ::syscall(SYS_memfd_create, name.c_str(), flags);
  if (fd < 0) throw error(errno, "memfd_create", name + ", " + bytes_text(bytes));
  const int made = static_cast<int>(fd);
  const char* call = nullptr;
  if (::fchmod(made, 0600) != 0) {
    call = "fchmod";
  } else if (::ftruncate(made, static_cast<off_t>(bytes)) != 0) {
    call = "ftruncate";
  } else if (::fcntl(made, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    call = "fcntl(F_ADD_SEALS)";
  }
  if (call != nullptr) {
    const int code = errno;
    ::close(made);
    throw error(code, call, name + ", " + bytes_text(bytes));
  }
  return made;
}

void file_attach(int fd, const reservation& room, access mode) {
  const int rights = mode == access::read ? PROT_READ : PROT_READ | PROT_WRITE;
  void* at = ::mmap(room.base(), room.size(), rights, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0);
  if (at == MAP_FAILED) throw error(errno, "mmap", fd_text(fd, room.size()));
}

int memfd_reopen_read_only(int fd) {
  path own{};
  std::snprintf(own.text, sizeof own.text, "/proc/self/fd/%d", fd);
  const int made = open_quietly(own.text, O_RDONLY);
  if (made < 0) throw error(errno, "open", std::string(own.text) + " read-only");
  return made;
}

bool file_look(int fd, file_status& status) noexcept {
  struct stat record{};
  if (::fstat(fd, &record) != 0) return false;
  const int seals = ::fcntl(fd, F_GET_SEALS);  // -1: no memfd
  constexpr int fixed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  status.owner = record.st_uid;
  status.mode = record.st_mode & 07777U;
  status.bytes = static_cast<std::uint64_t>(record.st_size);
  status.resident = static_cast<std::uint64_t>(record.st_blocks) * 512U;
  status.inode = record.st_ino;
  status.sealed = S_ISREG(record.st_mode) && seals >= 0 && (seals & fixed) == fixed;
  return true;
}

void file_close(int fd) noexcept { ::close(fd); }

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
    if (!files) continue;  // another user's process, or one that has ended
    while (const dirent* file = ::readdir(files.get())) {
      if (!is_number(file->d_name)) continue;
      const int fd = open_if((folder + file->d_name).c_str(), name);
      if (fd >= 0 || none_left(errno)) return fd;
    }
  }
  return -1;
}

}  // namespace sharedmem::os
