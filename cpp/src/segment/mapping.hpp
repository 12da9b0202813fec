/// \file
/// A whole segment, attached to the address space of this process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include <sharedmem/segment.hpp>

#include "os/segment.hpp"

namespace sharedmem {

using os::huge_page_size;

/// One segment, attached whole, readable and writable, aligned to `huge_page_size`.
/// Ownership: owns the address range and, for a memfd, a descriptor that is closed on exec. The
/// kernel frees the segment when its last mapping (and descriptor) in any process is gone, however
/// that happens; nothing has to be removed. Move-only; default-made or moved from it is empty.
/// Threads: const members and the page operations may run at once; moving and destroying need
/// exclusive access.
/// Processes: a forked child inherits the mapping as one of its own. Participants see each other's
/// stores; ordering them is the caller's work. The mapping is left out of core dumps, since reading
/// a hole to dump it would allocate it.
/// Page operations take bytes from the start of the segment; a range outside it or of length 0 is
/// ignored (`discard`: false). None of them throws or changes a byte that is not discarded.
class mapping {
 public:
  /// Tells whether the bytes at `base` are the segment that was meant. It must read the first bytes
  /// only: reading a hole allocates it.
  using verifier = os::segment::viewer;

  /// Bytes from which on `populate` divides its work.
  static constexpr std::size_t threaded_from = std::size_t{64} << 20;

  mapping() noexcept = default;

  /// Makes a segment for this user only (mode 0600), without reserving memory, and attaches it.
  /// \param kind   one of `os::segment_kinds`.
  /// \param bytes  greater than zero; rounded up to whole pages.
  /// \param tag    a random number; names a memfd so that `attach` recognises it. Unused for sysv.
  /// \post   all bytes read as 0; the segment disappears with its last user.
  /// \throws std::invalid_argument  `kind` is none of them, or `bytes` is 0 or too large to align.
  /// \throws sharedmem::error       ENOMEM (address space, overcommit), EINVAL (shmmax), ENOSPC
  ///         (shmall, shmmni), ENOSYS, EPERM, EMFILE, ...; nothing is left behind.
  [[nodiscard]] static mapping create(backing kind, std::size_t bytes, std::uint64_t tag);

  /// Attaches a segment that another process (or this one) made.
  /// Before a byte of it can be written, the kernel's record must show a segment of this library and
  /// this user (owner and creator, mode 0600, marked for removal or sealed, exact size), and
  /// `verify` must accept it over a read-only mapping; it is called again with the final one.
  /// \param name     where the maker said it is; a memfd that has moved is searched for by its tag
  ///                 among the descriptors of this user's processes.
  /// \param bytes    the exact size, whole pages.
  /// \param tag      as given to `create`.
  /// \param verify   not null.
  /// \param context  passed to `verify`.
  /// \throws std::invalid_argument  `name.kind` is not known, or `bytes` is not a whole number of pages.
  /// \throws sharedmem::stale_handle  it does not exist any more, or is something else.
  /// \throws sharedmem::error       EPERM or EACCES: another user's; ENOMEM: no address space; ...
  [[nodiscard]] static mapping attach(const segment_name& name, std::size_t bytes, std::uint64_t tag,
                                      verifier verify, void* context);

  /// Takes over an object that is attached already.
  [[nodiscard]] static mapping of(os::segment&& object) noexcept { return mapping{std::move(object)}; }

  /// Shows `look` a segment that others made, whatever its size, over a read-only mapping that is gone on
  /// return. Takes no part in anything: what is checked before is what `attach` checks.
  /// \param name, tag  as for `attach`.
  /// \param look     not null.
  /// \param context  passed to `look`.
  /// \return  what `look` returned.
  /// \throws what `attach` and `look` throw.
  static bool examine(const segment_name& name, std::uint64_t tag, verifier look, void* context);

  /// The same segment, attached once more to other addresses, read-only: a store there is a SIGSEGV, and neither
  /// mprotect(2) nor a page operation below makes it writable. Aligned as this one; huge pages are requested in all
  /// of it, so that it is one entry of the process's maps. It is no member of the segment by which others find it.
  /// \pre    this one is not empty.
  /// \throws sharedmem::error  what the kernel refused: ENOMEM (address space), EACCES (this process has another
  ///         user now), EBADF, EMFILE or ENOENT (a memfd, which is opened anew through /proc/self/fd).
  [[nodiscard]] mapping view_read_only() const;

  /// First byte; null if empty.
  [[nodiscard]] std::byte* data() const noexcept { return object_.data(); }
  /// Bytes, whole pages; 0 if empty.
  [[nodiscard]] std::size_t size() const noexcept { return data() == nullptr ? 0 : object_.bytes(); }
  /// How others find the segment. A memfd is named by this process's own descriptor, also in a
  /// forked child.
  [[nodiscard]] segment_name name() const noexcept { return object_.name(); }
  explicit operator bool() const noexcept { return data() != nullptr; }

  /// Bytes of the segment in memory or swap, whichever process touched them; 0 if unknown.
  [[nodiscard]] std::size_t resident() const noexcept;

  /// Promises memory to a range: see `os::segment::commit`, which takes the same. True also for a range that is ignored.
  [[nodiscard]] bool commit(std::size_t offset, std::size_t bytes) noexcept {
    if constexpr (os::memory_is_promised) return !holds(offset, bytes) || object_.commit(offset, bytes);
    return true;
  }

  /// Gives the pages of a range back to the system, for every process. It reads as 0 afterwards, or as anything where
  /// `os::discarded_is_zero` is false.
  /// \param offset, bytes  multiples of the page size; of `huge_page_size` to be quick.
  /// \return  false: not possible (locked pages, no support); the bytes may be there still.
  bool discard(std::size_t offset, std::size_t bytes) noexcept;

  /// Makes a page-aligned range inaccessible in this process: an access is a SIGSEGV.
  /// Splits the mapping: for a few ranges only.
  void guard(std::size_t offset, std::size_t bytes) noexcept;

  /// Asks for huge pages in a page-aligned range. Once, for the whole data space: each call on a
  /// part splits the mapping for good.
  void prefer_huge(std::size_t offset, std::size_t bytes) noexcept;

  /// Makes the pages of a range present and writable here, huge ones where the kernel can, without
  /// changing their bytes. The caller has to check before whether there is memory.
  /// \param offset   bytes from the mapping's start.
  /// \param bytes    length of the range.
  /// \param threads  how many threads, the calling one included, share the work from `threaded_from` on; at
  ///                 most `os::most_parts`. One that cannot be started leaves its part to the caller.
  void populate(std::size_t offset, std::size_t bytes, unsigned threads = 1) noexcept;

 private:
  explicit mapping(os::segment&& object) noexcept : object_{std::move(object)} {}
  [[nodiscard]] bool holds(std::size_t offset, std::size_t bytes) const noexcept;

  os::segment object_;
};

}  // namespace sharedmem
