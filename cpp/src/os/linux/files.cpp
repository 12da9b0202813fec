/// \file
/// Linux: regular files as shared memory.
#include "os/files.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <utility>

#include <sharedmem/error.hpp>

#include "os/pages.hpp"

namespace sharedmem::os {
namespace {

class descriptor {
 public:
  explicit descriptor(int fd) noexcept : fd_(fd) {}
  descriptor(const descriptor&) = delete;
  descriptor& operator=(const descriptor&) = delete;
  ~descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const noexcept { return fd_; }

 private:
  int fd_;
};

const char* kind_of(unsigned mode) noexcept {
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

// Of the file at `path`, or of the descriptor where that is empty.
file_facts facts_of(int fd, const char* path, const std::string& name) {
  struct statx record{};
  const int flags = *path == '\0' ? AT_EMPTY_PATH : 0;
  if (::statx(fd, path, flags, STATX_BASIC_STATS | STATX_BTIME, &record) != 0)
    throw error(errno, "statx", name);
  if (S_ISDIR(record.stx_mode)) throw error(EISDIR, "map", name);
  if (!S_ISREG(record.stx_mode))
    throw std::invalid_argument(name + " is " + kind_of(record.stx_mode) +
                                ": only regular files can be shared memory");
  file_facts facts;
  facts.device = std::uint64_t{record.stx_dev_major} << 32 | record.stx_dev_minor;
  facts.inode = record.stx_ino;
  if ((record.stx_mask & STATX_BTIME) != 0)
    facts.birth =
        static_cast<std::uint64_t>(record.stx_btime.tv_sec) * 1'000'000'000U + record.stx_btime.tv_nsec;
  facts.bytes = record.stx_size;
  return facts;
}

file_bytes map_open(int fd, bool writable, const std::string& name) {
  file_bytes made{nullptr, facts_of(fd, "", name)};
  if (made.facts.bytes == 0) return made;
  if (made.facts.bytes > SIZE_MAX / 2)
    throw error(ENOMEM, "mmap", name + ", " + std::to_string(made.facts.bytes) + " bytes");
  const int rights = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* at = ::mmap(nullptr, static_cast<std::size_t>(made.facts.bytes), rights, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) throw error(errno, "mmap", name + ", " + std::to_string(made.facts.bytes) + " bytes");
  made.data = static_cast<std::byte*>(at);
  return made;
}

void write_at(int fd, const std::byte* data, std::size_t bytes, std::uint64_t offset,
              const std::string& name) {
  while (bytes > 0) {
    const ssize_t done = ::pwrite(fd, data, bytes, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) throw error(errno, "write", name);
    data += done;
    bytes -= static_cast<std::size_t>(done);
    offset += static_cast<std::uint64_t>(done);
  }
}

// Gives the file its size and its blocks.
void reserve(int fd, std::uint64_t bytes, const std::string& name) {
  if (bytes == 0) return;
  const std::string what = name + ", " + std::to_string(bytes) + " bytes";
  if (bytes > static_cast<std::uint64_t>(INT64_MAX)) throw error(EFBIG, "fallocate", what);
  int code = 0;
  do {
    code = ::fallocate(fd, 0, 0, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
  } while (code == EINTR);
  if (code != 0 && code != EOPNOTSUPP && code != ENOSYS) throw error(code, "fallocate", what);
  if (code == 0) return;
  // A file system that cannot reserve has blocks for what was written.
  constexpr std::size_t piece = std::size_t{1} << 20;
  const auto zeros = std::make_unique<std::byte[]>(piece);
  for (std::uint64_t at = 0; at < bytes; at += piece)
    write_at(fd, zeros.get(), static_cast<std::size_t>(std::min<std::uint64_t>(piece, bytes - at)), at, what);
}

/// A new file that gets its name when it is complete: until then another file of that name stays, and no process sees
/// half of this one. Meanwhile it has no name, where the system offers that, so that a death leaves nothing.
class unfinished_file {
 public:
  unfinished_file(const std::string& path, mode_t mode)
      : path_(path), folder_(path.substr(0, path.rfind('/') + 1)), fd_(open(mode)) {}
  unfinished_file(const unfinished_file&) = delete;
  unfinished_file& operator=(const unfinished_file&) = delete;
  ~unfinished_file() {
    if (!name_.empty()) ::unlink(name_.c_str());
  }
  [[nodiscard]] int get() const noexcept { return fd_.get(); }

  /// Maps the file, which has all its bytes, and gives it its place.
  file_bytes finish() {
    if (name_.empty()) {
      // A link does not replace an existing file; only a rename does.
      const std::string itself = "/proc/self/fd/" + std::to_string(get());
      if (!under_new_name([&](const std::string& name) {
            return ::linkat(AT_FDCWD, itself.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0;
          }))
        throw error(errno, "link", path_);
    }
    // /proc/PID/maps shows a file that was opened without a name as deleted, also later. The rights of the file may
    // forbid opening it again by its name.
    const descriptor again(::open(name_.c_str(), O_RDWR | O_CLOEXEC));
    const file_bytes made = map_open(again.get() >= 0 ? again.get() : get(), true, path_);
    if (::rename(name_.c_str(), path_.c_str()) != 0) {
      const int code = errno;
      unmap_file(made.data, made.facts.bytes);
      throw error(code, "rename", path_);
    }
    name_.clear();
    return made;
  }

 private:
  int open(mode_t mode) {
    int fd = -1;
    // Without /proc such a file could never get a name.
    if (::access("/proc/self/fd", X_OK) == 0)
      fd = ::open(folder_.empty() ? "." : folder_.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, mode);
    if (fd >= 0) return fd;
    const auto made = [&](const std::string& name) {
      fd = ::open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
      return fd >= 0;
    };
    if (!under_new_name(made)) throw error(errno, "open", path_);
    return fd;
  }

  /// Tries names that no other file has, until `make` has made one; false, with errno: it cannot.
  template <class Make>
  bool under_new_name(const Make& make) {
    static std::atomic<unsigned> last{0};
    for (;;) {
      std::string name =
          folder_ + ".sharedmem-" + std::to_string(::getpid()) + "-" + std::to_string(++last) + ".tmp";
      if (make(name)) {
        name_ = std::move(name);
        return true;
      }
      if (errno != EEXIST) return false;
    }
  }

  const std::string& path_;
  const std::string folder_;  // with a slash at its end; empty: the working directory
  std::string name_;          // for the meantime; empty: it has none
  const descriptor fd_;
};

}  // namespace

file_facts look_at_file(const std::string& path) { return facts_of(AT_FDCWD, path.c_str(), path); }

file_bytes map_file(const std::string& path, bool writable) {
  look_at_file(path);  // a pipe is not opened: its writer would take this for its reader
  const descriptor file(
      ::open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (file.get() < 0) throw error(errno, "open", path);
  return map_open(file.get(), writable, path);
}

file_bytes create_file(const std::string& path, std::uint64_t bytes, std::span<const std::byte> head) {
  mode_t mode = 0666;
  struct stat before{};
  if (::stat(path.c_str(), &before) == 0) {
    if (S_ISDIR(before.st_mode)) throw error(EISDIR, "create", path);
    if (!S_ISREG(before.st_mode))
      throw std::invalid_argument(path + " is " + kind_of(before.st_mode) + ": it is not replaced by a file");
    mode = before.st_mode & 0777U;
  }
  unfinished_file file(path, mode);
  reserve(file.get(), bytes, path);
  write_at(file.get(), head.data(), head.size(), 0, path);
  return file.finish();
}

void unmap_file(std::byte* data, std::uint64_t bytes) noexcept {
  if (data != nullptr) ::munmap(data, static_cast<std::size_t>(bytes));
}

void flush_file(std::byte* data, std::uint64_t bytes, const std::string&, const file_facts&, bool) {
  const std::size_t before = reinterpret_cast<std::uintptr_t>(data) % page_size();
  if (::msync(data - before, static_cast<std::size_t>(bytes) + before, MS_SYNC) != 0)
    throw error(errno, "msync", std::to_string(bytes) + " bytes of a file");
}

}  // namespace sharedmem::os
