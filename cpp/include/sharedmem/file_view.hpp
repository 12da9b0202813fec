#pragma once

/// \file
/// Files as shared memory: one mapping per path, length and mode in a process, counted.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include <sharedmem/error.hpp>
#include <sharedmem/export.hpp>

namespace sharedmem {

/// Distinguishes a file from every other one of this host, also from one that is given the same inode later.
struct file_identity {
  std::uint64_t device = 0;  ///< st_dev
  std::uint64_t inode = 0;   ///< st_ino
  std::uint64_t birth =
      0;   ///< time of its creation, nanoseconds since 1970; 0: the file system does not tell

  friend bool operator==(const file_identity&, const file_identity&) = default;
};

enum class file_mode : bool {
  read,       ///< a store is a SIGSEGV, and mprotect(2) is refused with EACCES
  read_write  ///< stores reach the file, and every other process that has it mapped, at once
};

/// One reference to the bytes of a regular file, mapped whole as they are when it is opened. Empty: refers to none.
/// No descriptor stays open. Data is in the file as soon as it is stored, whatever happens to the process afterwards;
/// only a crash of the machine loses data that was not flushed.
/// Ownership: the last reference of a process unmaps the file. Copies are separate references.
/// Threads: one object belongs to one thread at a time; different ones may be used at once.
/// Processes: a forked child has a copy of every reference of its parent, and the mappings.
/// If another program truncates the file, the mapping stays, but a page beyond the new end is a SIGBUS.
class SHAREDMEM_API file_view {
 public:
  file_view() noexcept = default;

  /// Opens a file. An existing mapping of it in the same mode is reused, unless the file has grown.
  /// \param path  absolute: others open the file by it.
  /// \param mode  whether the mapping can be written.
  /// \throws std::invalid_argument  it is not a regular file, but a pipe, a device or a socket.
  /// \throws sharedmem::error       ENOENT, EACCES, EISDIR, ENOMEM (address space), EOVERFLOW, ...
  static file_view open(const std::string& path, file_mode mode);
  /// Opens a file that another process has opened before.
  /// \param path      absolute.
  /// \param mode      whether the mapping can be written.
  /// \param expected  which file it must be.
  /// \param bytes     how long it must be at least.
  /// \throws stale_handle           another file has that path now.
  /// \throws std::invalid_argument  it is shorter than `bytes`.
  /// \throws sharedmem::error       as above; ENOENT: it has been removed or renamed.
  static file_view open(const std::string& path, file_mode mode, const file_identity& expected,
                        std::uint64_t bytes);
  /// Creates a file of `bytes` zeros and opens it for reading and writing. Its blocks are reserved: a full disk is an
  /// error here, not a SIGBUS later. It replaces an existing file when it is complete; processes that have the old
  /// one mapped keep it unchanged.
  /// \param path   absolute.
  /// \param bytes  size of the file.
  /// \param head   its first bytes, instead of zeros; no longer than `bytes`.
  /// \throws sharedmem::error  ENOSPC, EDQUOT, EFBIG, EACCES, ENOENT (its folder), ...; nothing has changed then.
  static file_view create(const std::string& path, std::uint64_t bytes, std::span<const std::byte> head = {});
  /// The mapping that holds address `p`; empty if there is none.
  static file_view at(const void* p) noexcept;
  /// Whether a mapping holds address `p`. Without any file open this is one load.
  static bool holds(const void* p) noexcept;

  explicit operator bool() const noexcept { return shared_ != nullptr; }
  // The following members need a reference that is not empty.
  [[nodiscard]] std::byte* data() const noexcept;        ///< first byte; null if the file is empty
  [[nodiscard]] std::uint64_t bytes() const noexcept;    ///< of the file when it was mapped
  [[nodiscard]] file_mode mode() const noexcept;         ///< as it was opened
  [[nodiscard]] const std::string& path() const noexcept;  ///< by which this process first opened it
  [[nodiscard]] file_identity identity() const noexcept;   ///< which file it is

  /// Waits until the pages of a range are on the disk.
  /// \param p, bytes  a range of the mapping.
  /// \throws std::invalid_argument  the range is not within the mapping.
  /// \throws sharedmem::error       EIO, ENOSPC: they cannot be written. On Windows also what `open` throws, since the
  ///         file is opened again.
  /// \throws stale_handle           on Windows: another file has its path now.
  void flush(const void* p, std::uint64_t bytes) const;

  struct SHAREDMEM_HIDDEN mapped;

 private:
  explicit file_view(std::shared_ptr<mapped> shared) noexcept : shared_(std::move(shared)) {}
  std::shared_ptr<mapped> shared_;
};

}  // namespace sharedmem
