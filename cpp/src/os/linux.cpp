/// \file
/// Linux: address space, System V segments, memfd segments.
#include "os.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <limits>
#include <stdexcept>
#include <thread>

#include <sharedmem/error.hpp>

// Newer than the C libraries that this is built with.
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U  // Linux 6.3
#endif

namespace sharedmem::os {
namespace {

std::string bytes_text(std::size_t bytes) { return std::to_string(bytes) + " bytes"; }

std::string id_text(int id, std::size_t bytes) {
  return "id " + std::to_string(id) + ", " + bytes_text(bytes);
}

std::string fd_text(int fd, std::size_t bytes) {
  return "descriptor " + std::to_string(fd) + ", " + bytes_text(bytes);
}

int result(int returned) noexcept { return returned == 0 ? 0 : errno; }

}  // namespace

// ---- address space ------------------------------------------------------------------------------

reservation::reservation(std::size_t bytes) : size_{bytes} {
  if (bytes == 0 || bytes > std::numeric_limits<std::size_t>::max() - alignment) {
    throw std::invalid_argument("a segment of " + bytes_text(bytes));
  }
  const std::size_t all = bytes + alignment;
  void* at = ::mmap(nullptr, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED)
    throw error(errno, "mmap", bytes_text(all) + " of address space, see ulimit -v and SHAREDMEM_ARENA_SIZE");
  auto* first = static_cast<std::byte*>(at);
  const std::size_t past = reinterpret_cast<std::uintptr_t>(first) % alignment;
  const std::size_t before = past == 0 ? 0 : alignment - past;
  base_ = first + before;
  unmap(first, before);
  unmap(base_ + bytes, alignment - before);
}

reservation::~reservation() {
  if (base_ != nullptr) unmap(base_, size_);
}

std::byte* reservation::taken() noexcept {
  std::byte* base = base_;
  base_ = nullptr;
  return base;
}

void unmap(std::byte* base, std::size_t bytes) noexcept {
  if (bytes != 0) ::munmap(base, bytes);
}

int leave_out_of_dumps(std::byte* base, std::size_t bytes) noexcept {
  return result(::madvise(base, bytes, MADV_DONTDUMP));
}

// An emulator may accept MADV_REMOVE and do nothing: a page of our own tells.
bool punching_works() noexcept {
  static std::atomic<int> known{0};  // 1: yes, 2: no
  int answer = known.load(std::memory_order_relaxed);
  if (answer != 0) return answer == 1;
  const std::size_t page = page_size();
  void* at = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return false;  // no room to ask: ask again next time
  auto* byte = static_cast<volatile unsigned char*>(at);
  *byte = 1;
  const bool punched = ::madvise(at, page, MADV_REMOVE) == 0 && *byte == 0;
  ::munmap(at, page);
  known.store(punched ? 1 : 2, std::memory_order_relaxed);
  return punched;
}

bool punch(std::byte* base, std::size_t bytes) noexcept {
  return punching_works() && ::madvise(base, bytes, MADV_REMOVE) == 0;
}

bool forbid(std::byte* base, std::size_t bytes) noexcept { return ::mprotect(base, bytes, PROT_NONE) == 0; }

bool want_huge(std::byte* base, std::size_t bytes) noexcept {
  return ::madvise(base, bytes, MADV_HUGEPAGE) == 0;
}

int collapse(std::byte* base, std::size_t bytes) noexcept {
  return result(::madvise(base, bytes, MADV_COLLAPSE));
}

int fault_in(std::byte* base, std::size_t bytes) noexcept {
  return result(::madvise(base, bytes, MADV_POPULATE_WRITE));
}

std::size_t page_size() noexcept { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

unsigned usable_cores() noexcept {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return static_cast<unsigned>(CPU_COUNT(&set));
  return std::thread::hardware_concurrency();  // more than 1024 cores
}

// ---- System V segments --------------------------------------------------------------------------

int sysv_create(std::uint32_t keys, std::size_t bytes) {
  int code = 0;
  for (int attempt = 0; attempt < 64; ++attempt) {
    std::uint16_t random = 0;
    random_bytes(&random, sizeof random);
    const int id =
        ::shmget(static_cast<key_t>(keys | random), bytes, IPC_CREAT | IPC_EXCL | SHM_NORESERVE | 0600);
    if (id >= 0) return id;
    code = errno;
    if (code != EEXIST) break;
  }
  throw error(code, "shmget", bytes_text(bytes));
}

void sysv_attach(int id, const reservation& room, access mode) {
  const int flags = SHM_REMAP | (mode == access::read ? SHM_RDONLY : 0);
  if (::shmat(id, room.base(), flags) != room.base()) {
    throw error(errno, "shmat", id_text(id, room.size()));
  }
}

void* sysv_attach_anywhere(int id, std::size_t bytes) {
  void* at = ::shmat(id, nullptr, 0);
  // shmat's failure is (void*)-1, as mmap's
  if (at == MAP_FAILED) throw error(errno, "shmat", id_text(id, bytes));
  return at;
}

int sysv_look(int id, sysv_status& status) noexcept {
  shmid_ds record{};
  if (::shmctl(id, IPC_STAT, &record) != 0) return errno;
  status.owner = record.shm_perm.uid;
  status.creator = record.shm_perm.cuid;
  status.mode = record.shm_perm.mode & 0777U;
  status.removed = (record.shm_perm.mode & SHM_DEST) != 0;
  status.bytes = record.shm_segsz;
  status.attaches = record.shm_nattch;
  status.changed = record.shm_ctime;
  status.creator_pid = record.shm_cpid;
  return 0;
}

int sysv_remove(int id) noexcept { return result(::shmctl(id, IPC_RMID, nullptr)); }

void sysv_detach(const void* base) noexcept { ::shmdt(base); }

std::size_t sysv_sweep() noexcept {
  struct shm_info totals{};
  const int last = ::shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&totals));
  const uid_t user = ::geteuid();
  std::size_t removed = 0;
  for (int index = 0; index <= last; ++index) {
    shmid_ds record{};
    const int id = ::shmctl(index, SHM_STAT, &record);
    if (id < 0) continue;  // unused, or not ours to read
    const auto keys = static_cast<std::uint32_t>(record.shm_perm.__key) & 0xffff0000U;
    const bool orphan = (keys == arena_keys || keys == census_keys) && record.shm_perm.uid == user &&
                        record.shm_perm.cuid == user && (record.shm_perm.mode & SHM_DEST) == 0 &&
                        record.shm_nattch == 0 && record.shm_cpid > 0 &&
                        probe(static_cast<std::uint32_t>(record.shm_cpid)) == ESRCH;
    if (orphan && sysv_remove(id) == 0) ++removed;
  }
  return removed;
}

sysv_limits sysv_get_limits() noexcept {
  struct shminfo limits{};
  if (::shmctl(0, IPC_INFO, reinterpret_cast<shmid_ds*>(&limits)) < 0) return {};
  return {.segment = limits.shmmax, .all = limits.shmall};
}

// ---- memfd segments -----------------------------------------------------------------------------

int memfd_create(const std::string& name, std::size_t bytes) {
  // By number: the first C libraries with a wrapper are younger than the call. A kernel may demand
  // the no-exec seal, an older one does not know it.
  constexpr unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  long fd = ::syscall(SYS_memfd_create, name.c_str(), flags | MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL) fd = ::syscall(SYS_memfd_create, name.c_str(), flags);
  if (fd < 0) throw error(errno, "memfd_create", name + ", " + bytes_text(bytes));
  const int made = static_cast<int>(fd);
  const char* call = nullptr;
  if (::fchmod(made, 0600) != 0) {
    call = "fchmod";
  } else if (::ftruncate(made, static_cast<off_t>(bytes)) != 0) {
    call = "ftruncate";
  } else if (::fcntl(made, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    call = "fcntl(F_ADD_SEALS)";
  }
  if (call != nullptr) {
    const int code = errno;
    ::close(made);
    throw error(code, call, name + ", " + bytes_text(bytes));
  }
  return made;
}

void file_attach(int fd, const reservation& room, access mode) {
  const int rights = mode == access::read ? PROT_READ : PROT_READ | PROT_WRITE;
  void* at = ::mmap(room.base(), room.size(), rights, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0);
  if (at == MAP_FAILED) throw error(errno, "mmap", fd_text(fd, room.size()));
}

bool file_look(int fd, file_status& status) noexcept {
  struct stat record{};
  if (::fstat(fd, &record) != 0) return false;
  const int seals = ::fcntl(fd, F_GET_SEALS);  // -1: no memfd
  constexpr int fixed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  status.owner = record.st_uid;
  status.mode = record.st_mode & 07777U;
  status.bytes = static_cast<std::uint64_t>(record.st_size);
  status.resident = static_cast<std::uint64_t>(record.st_blocks) * 512U;
  status.inode = record.st_ino;
  status.sealed = S_ISREG(record.st_mode) && seals >= 0 && (seals & fixed) == fixed;
  return true;
}

void file_close(int fd) noexcept { ::close(fd); }

}  // namespace sharedmem::os
