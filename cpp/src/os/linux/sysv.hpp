/// \file
/// Linux: System V segments. Private to this folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "os/linux/address_space.hpp"
#include "os/linux/proc.hpp"
#include "os/linux/traits.hpp"

namespace sharedmem::os {

/// The upper half of the keys that our segments have between `shmget` and `IPC_RMID`. Other programs have such
/// keys, too: `ftok(path, 'S')` makes them for files on some devices.
inline constexpr std::uint32_t arena_keys = 0x534d0000;
inline constexpr std::uint32_t census_keys = 0x534e0000;

/// How many of the keys that `sysv_create` tries follow from the maker and the size.
inline constexpr std::uint32_t keys_of_maker = 8;
/// The key that process `pid` tries first (`attempt` 0) for a segment of `bytes` bytes, and those that follow
/// while others have these: it tells a segment of ours from one that has the upper half by chance.
std::uint32_t sysv_key(std::uint32_t keys, std::uint32_t pid, std::uint64_t bytes,
                       std::uint32_t attempt) noexcept;

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
/// Attaches a segment in the place of a reservation, which may lie elsewhere afterwards.
void sysv_attach(int id, reservation& room, access mode);
void* sysv_attach_anywhere(int id, std::size_t bytes);
int sysv_look(int id, sysv_status& status) noexcept;  // errno value
int sysv_remove(int id) noexcept;                     // errno value
void sysv_detach(const void* base) noexcept;
/// Bytes of the segment in memory and swap; 0: unknown.
std::uint64_t sysv_resident(int id) noexcept;
/// How often the segment is attached, by all processes, also where this process may not read its record: that
/// has become another user's when this process called setuid(2). An errno value.
int sysv_count(int id, std::uint64_t& attaches) noexcept;

/// Keys of segments that processes meet by have these upper nine bits; the others follow from what they meet for.
inline constexpr std::uint32_t meeting_keys = 0x53800000;
inline constexpr std::uint32_t meeting_key_mask = 0xff800000;
/// Such a segment is as large as that and its tag beyond whole huge pages: the kernel keeps sizes to the byte.
inline constexpr std::uint32_t meeting_size = 0xc00;

int sysv_create_keyed(std::uint32_t key, std::size_t bytes, int& id) noexcept;  // errno value
int sysv_find_keyed(std::uint32_t key, int& id) noexcept;                       // errno value
/// Calls `seen` for each segment that this process may read the record of. An errno value.
int sysv_each(const std::function<void(int id, const sysv_status&)>& seen);

struct sysv_limits {
  std::uint64_t segment = UINT64_MAX;  // bytes
  std::uint64_t all = UINT64_MAX;      // pages
};
sysv_limits sysv_get_limits() noexcept;

/// The first bytes of a census: tells it from another segment of a page.
inline constexpr char census_magic[16] = "sharedmem count";

/// What the kernel says of segment `id`.
/// \throws sharedmem::stale_handle  it was removed, or is not of this library: no mode 0600, or not
///         marked for removal.
/// \throws sharedmem::error         EPERM: another user's; or what the kernel refused.
sysv_status check_sysv(int id);

/// Whether the segment of `id` was removed: by the kernel's record, since an attach is refused with
/// EINVAL for other reasons, too.
bool sysv_has_gone(int id) noexcept;

/// The System V segments of this IPC namespace, as /proc/sysvipc/shm lists them for every user: pids are those of
/// this process's namespace. Where there is no such file the list is empty.
class sysv_table {
 public:
  struct row {
    std::uint32_t key = 0;  // 0 once it is marked for removal
    int id = -1;
    sysv_status status;
    std::uint64_t resident = 0;  // bytes in memory and swap
  };
  /// False: no more.
  bool next(row& r) noexcept;

 private:
  lines lines_{"/proc/sysvipc/shm"};
};

}  // namespace sharedmem::os
