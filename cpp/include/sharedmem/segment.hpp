/// \file
/// Names of kernel shared-memory objects, and removal of those that no process can refer to any more.
#pragma once

#include <cstddef>
#include <cstdint>

#include <sharedmem/export.hpp>

namespace sharedmem {

/// The kind of object that contains a segment's bytes. The values are stored in shared bytes: never renumber.
enum class backing : std::uint8_t {
  none = 0,
  sysv = 1,   ///< System V shared memory, marked for removal when it is created
  memfd = 2,  ///< memfd_create, reached by others through /proc/PID/fd
  section = 3,  ///< Windows: a named section of the paging file
};

/// How a process on the same host finds a segment.
struct segment_name {
  backing kind = backing::none;
  std::int32_t id =
      -1;   ///< sysv: the shmid; memfd: a descriptor number in process `pid`; section: a part of its name
  std::int32_t pid = 0;   ///< memfd only: a process that has the descriptor open

  friend bool operator==(const segment_name&, const segment_name&) = default;
};

/// Removes System V segments that a process of this user left behind when it was killed between
/// `shmget` and `IPC_RMID`. System V segments are meant to persist, and other programs may have keys with the
/// same upper half, so all of this must hold: the key is the one that this library computes from the creator's
/// pid and the size; mode 0600; owner and creator are the effective user; no process is attached; it is not marked for
/// removal; the creator is certainly dead; and it contains no page or, if it is a census, only the census's magic.
/// Segments by whose keys processes of this user find each other have other keys and sizes, by which they are recognized.
/// Segments whose creators were in another pid namespace, or created while /proc/sysvipc/shm cannot be read, stay.
/// \return  how many were removed. Errors are ignored: the next caller tries again.
SHAREDMEM_API std::size_t sweep_orphans() noexcept;

}  // namespace sharedmem
