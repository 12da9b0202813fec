/// \file
/// Linux: processes, files of /proc, and other small helpers. Private to this folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "os/identity.hpp"

namespace sharedmem::os {

/// Sends signal 0: an errno value; only ESRCH proves anything.
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
/// What two looks agree on; 0: unknown. gVisor gives the files of /proc/self/ns other inode numbers at each look, which
/// then say nothing about namespaces.
std::uint64_t steady(std::uint64_t (*look)(const char*) noexcept, const char* name) noexcept;

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

/// Opens without following signals' interruptions or waiting; -1 with errno else.
int open_quietly(const char* name, int flags) noexcept;

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
