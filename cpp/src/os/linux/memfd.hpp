/// \file
/// Linux: memfd segments. Private to this folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "os/channel.hpp"
#include "os/linux/address_space.hpp"

namespace sharedmem::os {

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
/// A second descriptor of the file that `fd` is, which cannot write. \throws sharedmem::error
int memfd_reopen_read_only(int fd);
bool file_look(int fd, file_status& status) noexcept;
/// A descriptor of our own for the memfd `name`, that process `pid` has as `fd`; -1: it is not there, or, by
/// errno, no descriptor is left: `none_left`.
int memfd_open(std::int32_t pid, std::int32_t fd, std::string_view name) noexcept;
/// The same, wherever a process of this user has it open.
int memfd_search(std::string_view name);
/// Whether errno `code` says that this process, or the system, can open no more files.
bool none_left(int code) noexcept;
/// The inode of the file that process `pid` has as `fd`, as /proc/PID/maps shows it; 0: unknown.
std::uint64_t memfd_inode(std::int32_t pid, std::int32_t fd) noexcept;

}  // namespace sharedmem::os
