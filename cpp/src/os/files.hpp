/// \file
/// Regular files, mapped as shared memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace sharedmem::os {

/// What the system says of a file.
struct file_facts {
  std::uint64_t device = 0, inode = 0;
  std::uint64_t birth = 0;  // nanoseconds since 1970; 0: unknown
  std::uint64_t bytes = 0;
};

/// A file whose bytes are mapped whole, shared with all processes that map it. No descriptor is kept.
struct file_bytes {
  std::byte* data = nullptr;  // null: the file is empty
  file_facts facts;
};

/// \throws std::invalid_argument  it is not a regular file.
/// \throws sharedmem::error       EISDIR: a folder; ENOENT, EACCES, ...
file_facts look_at_file(const std::string& path);
/// \param writable  else a store is a SIGSEGV, and the system refuses to make the pages writable.
/// \throws what `look_at_file` throws, and ENOMEM.
file_bytes map_file(const std::string& path, bool writable);
/// Makes a file of `bytes` bytes, `head` and then zeros, and maps it writable. Its blocks are reserved. It takes the
/// place of another file of that name when it is complete; when something fails that one stays, and nothing is left.
/// \throws sharedmem::error  ENOSPC, EDQUOT, EFBIG, EACCES, ENOENT, EISDIR, ...
file_bytes create_file(const std::string& path, std::uint64_t bytes, std::span<const std::byte> head);
void unmap_file(std::byte* data, std::uint64_t bytes) noexcept;
/// Waits until the pages that hold a range of a mapped file are on the disk.
/// \param path, facts  of the file when it was mapped: a system may have to open it again.
/// \param writable     how it was mapped.
/// \throws sharedmem::error         EIO, ENOSPC, and where it is opened again what that throws.
/// \throws sharedmem::stale_handle  it cannot be opened again, because another file has the path now.
void flush_file(std::byte* data, std::uint64_t bytes, const std::string& path, const file_facts& facts,
                bool writable);

}  // namespace sharedmem::os
