/// \file
/// The few things that this library asks of the operating system. Only src/os makes system calls.
/// What is `noexcept` allocates nothing; what is not throws `sharedmem::error`, with the call, its
/// object and sizes, and leaves nothing behind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sharedmem::os {

// ---- address space ------------------------------------------------------------------------------

enum class access : bool { read, write };

/// Addresses kept free until a segment takes their place: aligned, inaccessible.
class reservation {
 public:
  static constexpr std::size_t alignment = std::size_t{2} << 20;

  explicit reservation(std::size_t bytes);
  reservation(const reservation&) = delete;
  reservation& operator=(const reservation&) = delete;
  ~reservation();

  [[nodiscard]] std::byte* base() const noexcept { return base_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  /// A segment lies there now: its own detach gives the addresses back.
  std::byte* taken() noexcept;

 private:
  std::byte* base_ = nullptr;
  std::size_t size_ = 0;
};

void unmap(std::byte* base, std::size_t bytes) noexcept;

// All of these take whole pages; false, or an errno value that is not 0: it was not done.
int leave_out_of_dumps(std::byte* base, std::size_t bytes) noexcept;
bool punch(std::byte* base, std::size_t bytes) noexcept;
bool punching_works() noexcept;  // tried once; early, since trying needs a page
bool forbid(std::byte* base, std::size_t bytes) noexcept;
bool want_huge(std::byte* base, std::size_t bytes) noexcept;
int collapse(std::byte* base, std::size_t bytes) noexcept;
int fault_in(std::byte* base, std::size_t bytes) noexcept;

std::size_t page_size() noexcept;
unsigned usable_cores() noexcept;

// ---- System V segments --------------------------------------------------------------------------

/// The upper half of the keys that our segments have between `shmget` and `IPC_RMID`.
inline constexpr std::uint32_t arena_keys = 0x534d0000;
inline constexpr std::uint32_t census_keys = 0x534e0000;

struct sysv_status {
  std::uint32_t owner = 0;
  std::uint32_t creator = 0;
  std::uint32_t mode = 0;  // the nine permission bits
  bool removed = false;    // marked, disappears with the last attach
  std::uint64_t bytes = 0;
  std::uint64_t attaches = 0;
  std::int64_t changed = 0;
  std::int32_t creator_pid = 0;  // 0: of another pid namespace

  /// Whether a later look shows the same segment, not one that was given its id meanwhile.
  [[nodiscard]] bool same_segment(const sysv_status& later) const noexcept {
    return creator_pid == later.creator_pid && changed == later.changed && bytes == later.bytes;
  }
};

int sysv_create(std::uint32_t keys, std::size_t bytes);
void sysv_attach(int id, const reservation& room, access mode);
void* sysv_attach_anywhere(int id, std::size_t bytes);
int sysv_look(int id, sysv_status& status) noexcept;  // errno value
int sysv_remove(int id) noexcept;                     // errno value
void sysv_detach(const void* base) noexcept;
/// Bytes of the segment in memory and swap; 0: unknown.
std::uint64_t sysv_resident(int id) noexcept;
/// See sweep_orphans.
std::size_t sysv_sweep() noexcept;

struct sysv_limits {
  std::uint64_t segment = UINT64_MAX;  // bytes
  std::uint64_t all = UINT64_MAX;      // pages
};
sysv_limits sysv_get_limits() noexcept;

// ---- memfd segments -----------------------------------------------------------------------------

struct file_status {
  std::uint32_t owner = 0;
  std::uint32_t mode = 0;
  std::uint64_t bytes = 0;
  std::uint64_t resident = 0;
  std::uint64_t inode = 0;
  bool sealed = false;  // a memfd whose size is fixed for ever
};

/// `name` is what shows in /proc/PID/fd, after "/memfd:" and before " (deleted)".
int memfd_create(const std::string& name, std::size_t bytes);
void file_attach(int fd, const reservation& room, access mode);
bool file_look(int fd, file_status& status) noexcept;
void file_close(int fd) noexcept;
/// A descriptor of our own for the memfd `name`, that process `pid` has as `fd`; -1: it is not there, or, by
/// errno, there is no descriptor to be had: `none_left`.
int memfd_open(std::int32_t pid, std::int32_t fd, std::string_view name) noexcept;
/// The same, wherever a process of this user has it open.
int memfd_search(std::string_view name);
/// Whether errno `code` says that this process, or the system, can open no more files.
bool none_left(int code) noexcept;
/// The inode of the file that process `pid` has as `fd`, as /proc/PID/maps shows it; 0: unknown.
std::uint64_t memfd_inode(std::int32_t pid, std::int32_t fd) noexcept;

// ---- processes and files of /proc ---------------------------------------------------------------

std::uint32_t pid() noexcept;
std::uint32_t effective_user() noexcept;
/// Signal 0: an errno value; ESRCH is the only proof of anything.
int probe(std::uint32_t pid) noexcept;

/// The text of a short path.
struct path {
  char text[64];
};
path proc_path(std::uint32_t pid, const char* what) noexcept;  // /proc/PID/WHAT

/// First bytes of a file; empty: unreadable.
std::string_view read_file(const char* name, char* room, std::size_t bytes) noexcept;
/// Target of a link; empty: unreadable, or longer than `bytes`.
std::string_view read_link(const char* name, char* room, std::size_t bytes) noexcept;
/// Inode number, through links; 0: unknown.
std::uint64_t inode_of(const char* name) noexcept;

/// The lines of a text file, through a buffer of its own.
class lines {
 public:
  explicit lines(const char* name) noexcept;
  lines(const lines&) = delete;
  lines& operator=(const lines&) = delete;
  ~lines();

  [[nodiscard]] bool opened() const noexcept { return fd_ >= 0; }
  /// \param line  without its end; cut where it is longer than the buffer; valid until the next call.
  /// \return  false: no more, or unreadable; see `whole`.
  bool next(std::string_view& line) noexcept;
  /// After `next` was false: the file was read to its end.
  [[nodiscard]] bool whole() const noexcept { return fd_ >= 0 && end_ && !failed_; }

 private:
  bool fill() noexcept;

  char text_[4096];
  std::size_t begin_ = 0;
  std::size_t size_ = 0;
  int fd_ = -1;
  bool end_ = false;
  bool failed_ = false;
  bool cut_ = false;  // what follows belongs to a line that was handed out cut
};

// ---- pipes and sockets --------------------------------------------------------------------------

struct channel_status {
  bool pipe = false;    // unnamed
  bool socket = false;  // AF_UNIX, SOCK_STREAM
  std::uint64_t inode = 0;
};
channel_status channel_look(int fd) noexcept;
bool channel_abandoned(int fd, bool pipe) noexcept;  // nobody has the other end open
bool channel_drained(int fd, bool pipe) noexcept;    // nothing that was written is still to be read
int pipe_name(int fd) noexcept;  // a descriptor that names the pipe and is no end of it; -1: none to be had
int pipe_open(int name) noexcept;  // a writing end; -1: none to be had
/// See channel::unread; the pipe must be abandoned.
std::vector<std::byte> pipe_unread(int fd);

// ---- the rest -----------------------------------------------------------------------------------

void random_bytes(void* out, std::size_t bytes);
/// Bytes; UINT64_MAX: none.
std::uint64_t address_space_limit() noexcept;

struct system_memory {
  std::uint64_t available = 0;
  std::uint64_t total = 0;
};
system_memory ask_sysinfo() noexcept;
/// Something that names this machine where /proc does not; as many bytes as fit.
std::string_view machine_name(char* room, std::size_t bytes) noexcept;

}  // namespace sharedmem::os
