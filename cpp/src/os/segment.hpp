/// \file
/// A kernel object of shared memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <sharedmem/segment.hpp>

#include "os/pages.hpp"
#include "os/traits.hpp"

namespace sharedmem::os {

class segment;

/// What came of `segment::create_under_key`.
enum class meeting : std::uint8_t {
  made,   ///< by this call
  found,  ///< another process has made it
  gone,   ///< it was removed meanwhile: try again
  taken,  ///< the key is another user's, or another program's
};

/// A kernel object of shared memory that this process has found or made, and its view of it.
/// Ownership: owns the view, and what keeps the object findable (for a memfd a descriptor that is closed on
///   exec). The kernel frees the object when the last view and descriptor in any process are gone, however
///   that happens. Move-only; default-made or moved from it is empty.
/// Threads: const members may run at once; everything else needs exclusive access.
/// Processes: a forked child inherits the view as one of its own.
class segment {
 public:
  /// Looks at the bytes of a segment. It must read the first bytes only: reading a hole allocates it.
  using viewer = bool (*)(const void* base, std::size_t bytes, void* context);

  /// Alignment of every view, bytes.
  static constexpr std::size_t alignment = huge_page_size;
  /// So many tags are told apart by `create_under_key` and `list`.
  static constexpr std::uint32_t tags = 1024;

  segment() noexcept = default;
  segment(segment&& other) noexcept;
  segment& operator=(segment&& other) noexcept;
  segment(const segment&) = delete;
  segment& operator=(const segment&) = delete;
  ~segment();

  /// Makes an object for this user only, without reserving memory, and attaches it.
  /// \param kind   one of `segment_kinds`.
  /// \param bytes  whole pages, more than 0.
  /// \param tag    a random number, by which `open` recognises an object whose name does not tell it.
  /// \post   readable and writable, all bytes 0, left out of core dumps; removed with its last user.
  /// \throws std::invalid_argument  no such kind.
  /// \throws sharedmem::error  ENOMEM, EINVAL, ENOSPC, ENOSYS, EPERM, EMFILE, with the system's own call;
  ///         nothing is left behind.
  [[nodiscard]] static segment create(backing kind, std::size_t bytes, std::uint64_t tag);

  /// Finds an object by its name, without attaching it.
  /// The system's record must show one of this library and this user: owner, creator, mode, and that its
  /// end with its last user is settled.
  /// \throws std::invalid_argument    no such kind.
  /// \throws sharedmem::stale_handle  it has gone, or is something else.
  /// \throws sharedmem::error         EPERM or EACCES: another user's; EMFILE, ENFILE; ...
  [[nodiscard]] static segment open(const segment_name& name, std::uint64_t tag);

  // ---- how unrelated processes find a segment of their user. On Linux System V memory only.

  /// Makes an object under a key, which names at most one in the IPC namespace, or finds the one that has the key.
  /// Neither is attached, and what was made stays after all processes have ended, until `let_key_go`. Where keys cannot be
  /// let go it is removed with its last user.
  /// \param number what they meet for, 23 bits; the key follows from it.
  /// \param bytes  whole huge pages, more than 0.
  /// \param tag    less than `tags`: the system's list shows it, so that `list` finds the object.
  /// \throws sharedmem::error  as `create`.
  static meeting create_under_key(std::uint32_t number, std::size_t bytes, std::uint32_t tag,
                                  segment& object);
  /// In one step frees the key, puts the object into the list of `list`, and has it removed with its last user.
  /// Calling this twice, after the removal, or where keys cannot be let go, has no effect.
  static void let_key_go(const segment_name& name) noexcept;
  /// Objects of this user that carry the tag and have been let go, in no order, by the kernel's own list. Where keys
  /// cannot be let go there is no such list, and these are the objects that have one of the keys.
  /// \param numbers  of the keys under which they were made.
  /// \throws sharedmem::error  ENOSYS, EPERM: no System V memory here.
  static std::vector<segment_name> list(std::uint32_t tag, std::span<const std::uint32_t> numbers);

  /// Shows it whole, read-only, for the time of the call. Returns what `view` returned. Where `memory_is_promised` the
  /// first page has its memory then; false if there is none.
  /// \throws sharedmem::stale_handle  it is not the object that was opened any more.
  /// \throws sharedmem::error         ENOMEM: no address space; ...
  bool look(viewer view, void* context) const;

  /// Attaches what `open` found, readable and writable, left out of core dumps. Throws what `look` throws.
  void attach();

  /// The same object, attached a second time: whole, read-only, left out of core dumps. A store through it is a
  /// SIGSEGV, and the system refuses to make it writable (mprotect(2): EACCES). It does not keep the object
  /// findable, and its `name` must not be used.
  /// \pre    this one is attached.
  /// \throws sharedmem::error  ENOMEM: no address space; EACCES: this process has changed its user; of a memfd
  ///         ENOENT without /proc, EBADF if its descriptor was closed by others, EMFILE, ENFILE; ...
  [[nodiscard]] segment attach_read_only() const;

  /// Commits memory to a range, for all processes: from then on any may touch it, until the object is destroyed.
  /// Has no effect where that was done before, or where `memory_is_promised` is false. Allocates no private memory.
  /// \pre    this one is attached, for writing.
  /// \param offset, bytes  whole pages, in the segment.
  /// \return  false: the system has no memory left to promise; perhaps a part of the range has its memory now.
  [[nodiscard]] bool commit(std::size_t offset, std::size_t bytes) noexcept {
    if constexpr (memory_is_promised) return promise(offset, bytes);
    return true;
  }

  /// First byte; null while it is not attached.
  [[nodiscard]] std::byte* data() const noexcept { return base_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  /// How others find it. A memfd is named by this process's own descriptor, also in a forked child.
  [[nodiscard]] segment_name name() const noexcept;
  /// What messages call it.
  [[nodiscard]] std::string text() const;
  /// Bytes in memory or swap, whichever process touched them; if `memory_is_promised`, those that are committed. 0: unknown.
  [[nodiscard]] std::uint64_t resident() const noexcept;

 private:
  segment(backing kind, std::size_t bytes, std::int32_t id, std::uint64_t tag) noexcept
      : kind_{kind}, id_{id}, bytes_{bytes}, tag_{tag} {}
  void reset() noexcept;
  bool promise(std::size_t offset, std::size_t bytes) noexcept;  // only where memory_is_promised
  /// Bytes of addresses that a view takes: an object with a tag is a page longer than what is used of it.
  [[nodiscard]] std::size_t mapped() const noexcept { return bytes_ + (tagged_ ? page_size() : 0); }

  backing kind_ = backing::none;
  std::int32_t id_ = -1;
  std::byte* base_ = nullptr;
  std::size_t bytes_ = 0;
  std::uint64_t tag_ = 0;
  bool tagged_ = false;
  /// What tells it from another object that was given its id: of System V memory the time of the last change
  /// and the creator's pid, of a memfd the inode. A section is not looked for again: its open handle.
  std::uint64_t changed_ = 0, made_by_ = 0;
};

}  // namespace sharedmem::os
