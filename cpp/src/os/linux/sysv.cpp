/// \file
/// Linux: System V segments.
#include "os/linux/sysv.hpp"

#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>

#include <cerrno>
#include <charconv>
#include <string>
#include <string_view>

#include <sharedmem/error.hpp>

#include "os/identity.hpp"

namespace sharedmem::os {
namespace {

std::string id_text(int id, std::size_t bytes) {
  return "id " + std::to_string(id) + ", " + bytes_text(bytes);
}

int result(int returned) noexcept { return returned == 0 ? 0 : errno; }

// The only places that enter the kernel: without System V memory they answer as a kernel without it does.

int call_shmget(std::uint32_t key, std::size_t bytes, int flags) noexcept {
  if constexpr (has_sysv) return ::shmget(static_cast<key_t>(key), bytes, flags);
  errno = ENOSYS;
  return -1;
}

void* call_shmat(int id, const void* at, int flags) noexcept {
  if constexpr (has_sysv) return ::shmat(id, at, flags);
  errno = ENOSYS;
  return MAP_FAILED;
}

int call_shmctl(int id, int command, void* record) noexcept {
  if constexpr (has_sysv) return ::shmctl(id, command, static_cast<shmid_ds*>(record));
  errno = ENOSYS;
  return -1;
}

void call_shmdt(const void* base) noexcept {
  if constexpr (has_sysv) ::shmdt(base);
}

// Attaches where a reservation was, without replacing a mapping that is there. An errno value.
int attach_at_free_addresses(int id, reservation& room, int flags) {
  int code = 0;
  for (int attempt = 0; attempt < 16; ++attempt) {
    std::byte* const wanted = room.give_back();
    void* const at = call_shmat(id, wanted, flags);
    if (at == wanted) {
      room.hold(wanted);
      return 0;
    }
    // Another thread has taken the addresses: Linux refuses then, others take some that are free.
    code = at == MAP_FAILED ? errno : EINVAL;
    if (at != MAP_FAILED) call_shmdt(at);
    room.renew();
    if (code != EINVAL) break;
  }
  return code;
}

sysv_status status_of(const shmid_ds& record) noexcept {
  sysv_status status;
  status.owner = record.shm_perm.uid;
  status.creator = record.shm_perm.cuid;
  status.mode = record.shm_perm.mode & 0777U;
  status.removed = (record.shm_perm.mode & SHM_DEST) != 0;
  status.bytes = record.shm_segsz;
  status.attaches = record.shm_nattch;
  status.changed = record.shm_ctime;
  status.creator_pid = record.shm_cpid;
  return status;
}

}  // namespace

std::uint32_t sysv_key(std::uint32_t keys, std::uint32_t pid, std::uint64_t bytes,
                       std::uint32_t attempt) noexcept {
  std::uint64_t sum = std::uint64_t{pid} << 32 ^ std::uint64_t{attempt} << 24 ^ bytes;
  sum = (sum ^ sum >> 30) * 0xbf58476d1ce4e5b9U;  // the finaliser of splitmix64 (Steele, Lea, Flood 2014)
  sum = (sum ^ sum >> 27) * 0x94d049bb133111ebU;
  return keys | static_cast<std::uint32_t>(sum >> 48);
}

int sysv_create(std::uint32_t keys, std::size_t bytes) {
  int code = 0;
  for (std::uint32_t attempt = 0; attempt < 64; ++attempt) {
    std::uint32_t key = sysv_key(keys, pid(), bytes, attempt);
    if (attempt >= keys_of_maker) {  // all of those are in use: segments left behind then stay
      std::uint16_t random = 0;
      random_bytes(&random, sizeof random);
      key = keys | random;
    }
    const int id = call_shmget(key, bytes, IPC_CREAT | IPC_EXCL | SHM_NORESERVE | 0600);
    if (id >= 0) return id;
    code = errno;
    if (code != EEXIST) break;
  }
  throw error(code, "shmget", bytes_text(bytes));
}

void sysv_attach(int id, reservation& room, access mode) {
  const int flags = mode == access::read ? SHM_RDONLY : 0;
  if (call_shmat(id, room.base(), flags | SHM_REMAP) == room.base()) return;
  int code = errno;
  if (code == ENOMEM) code = attach_at_free_addresses(id, room, flags);  // gVisor cannot replace a mapping
  if (code != 0) throw error(code, "shmat", id_text(id, room.size()));
}

void* sysv_attach_anywhere(int id, std::size_t bytes) {
  void* at = call_shmat(id, nullptr, 0);
  // shmat's failure is (void*)-1, as mmap's
  if (at == MAP_FAILED) throw error(errno, "shmat", id_text(id, bytes));
  return at;
}

int sysv_look(int id, sysv_status& status) noexcept {
  shmid_ds record{};
  if (call_shmctl(id, IPC_STAT, &record) != 0) return errno;
  status = status_of(record);
  return 0;
}

int sysv_create_keyed(std::uint32_t key, std::size_t bytes, int& id) noexcept {
  id = call_shmget(key, bytes, IPC_CREAT | IPC_EXCL | SHM_NORESERVE | 0600);
  return id >= 0 ? 0 : errno;
}

int sysv_find_keyed(std::uint32_t key, int& id) noexcept {
  id = call_shmget(key, 0, 0);
  return id >= 0 ? 0 : errno;
}

int sysv_each(const std::function<void(int id, const sysv_status&)>& seen) {
  struct shm_info all{};
  const int last = call_shmctl(0, SHM_INFO, &all);
  if (last < 0) return errno;
  for (int index = 0; index <= last; ++index) {
    shmid_ds record{};
    const int id = call_shmctl(index, SHM_STAT, &record);
    if (id >= 0) seen(id, status_of(record));
  }
  return 0;
}

int sysv_remove(int id) noexcept { return result(call_shmctl(id, IPC_RMID, nullptr)); }

void sysv_detach(const void* base) noexcept { call_shmdt(base); }

sysv_limits sysv_get_limits() noexcept {
  struct shminfo limits{};
  if (call_shmctl(0, IPC_INFO, &limits) < 0) return {};
  return {.segment = limits.shmmax, .all = limits.shmall};
}

bool sysv_has_gone(int id) noexcept {
  sysv_status status;
  const int code = sysv_look(id, status);
  return code == EINVAL || code == EIDRM;
}

sysv_status check_sysv(int id) {
  const auto name = [id] { return "segment " + std::to_string(id); };
  sysv_status status;
  if (const int code = sysv_look(id, status); code == EINVAL || code == EIDRM) {
    throw stale_handle(name() + " has gone");
  } else if (code != 0) {
    throw error(code, "shmctl(IPC_STAT)", "id " + std::to_string(id));
  }
  const std::uint32_t user = effective_user();
  if (status.owner != user || status.creator != user) {
    const std::uint32_t other = status.owner != user ? status.owner : status.creator;
    throw error(
        EPERM, "attach",
        "id " + std::to_string(id) + " of user " + std::to_string(other) + ", not " + std::to_string(user));
  }
  if (status.mode != 0600 || !status.removed) {
    throw stale_handle(name() + " is not one of this library's");
  }
  return status;
}

bool sysv_table::next(row& r) noexcept {
  // key shmid perms size cpid lpid nattch uid gid cuid cgid atime dtime ctime rss swap
  constexpr int fields = 16;
  constexpr int perms_field = 2;  // the one that is octal
  std::string_view line;
  while (lines_.next(line)) {
    std::int64_t value[fields] = {};
    const char* at = line.data();
    const char* const end = at + line.size();
    int field = 0;
    for (; field < fields; ++field) {
      while (at != end && *at == ' ') ++at;
      const auto [next, failure] = std::from_chars(at, end, value[field], field == perms_field ? 8 : 10);
      if (failure != std::errc{}) break;
      at = next;
    }
    if (field < fields) continue;  // the heading
    r.key = static_cast<std::uint32_t>(value[0]);
    r.id = static_cast<int>(value[1]);
    r.status.mode = static_cast<std::uint32_t>(value[2]) & 0777U;
    r.status.removed = (static_cast<std::uint32_t>(value[2]) & SHM_DEST) != 0;
    r.status.bytes = static_cast<std::uint64_t>(value[3]);
    r.status.creator_pid = static_cast<std::int32_t>(value[4]);
    r.status.attaches = static_cast<std::uint64_t>(value[6]);
    r.status.owner = static_cast<std::uint32_t>(value[7]);
    r.status.creator = static_cast<std::uint32_t>(value[9]);
    r.status.changed = value[13];
    r.resident = static_cast<std::uint64_t>(value[14]) + static_cast<std::uint64_t>(value[15]);
    return true;
  }
  return false;
}

std::uint64_t sysv_resident(int id) noexcept {
  sysv_table table;
  for (sysv_table::row r; table.next(r);)
    if (r.id == id) return r.resident;
  return 0;
}

int sysv_count(int id, std::uint64_t& attaches) noexcept {
  sysv_status status;
  const int code = sysv_look(id, status);
  attaches = status.attaches;
  if (code != EACCES) return code;
  sysv_table table;
  for (sysv_table::row r; table.next(r);) {
    if (r.id != id) continue;
    attaches = r.status.attaches;
    return 0;
  }
  return code;
}

}  // namespace sharedmem::os
