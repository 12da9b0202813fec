/// What kernels do that say they are Linux and are not (gVisor): System V memory that cannot be attached in the place of
/// another mapping, and namespaces whose numbers change at each look.
#include <doctest.h>

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

#include <sharedmem/arena.hpp>
#include "os/linux/proc.hpp"
#include "os/pages.hpp"

#include "arena_tools.hpp"
#include "mapping_tools.hpp"
#include "replaced.hpp"

namespace {

// How the kernel of this test attaches segments. `other_threads` holds what was mapped meanwhile, as another thread
// could: a page each, with a mark.
struct kernel {
  int refuses_remap_with = 0;
  int taken_by_others = 0;  // so many attaches find that another thread has just taken their addresses
  bool elsewhere = false;  // and are then put elsewhere, as by gVisor; else they are refused
  bool no_more_room = false;  // and this process gets little address space afterwards
  int calls = 0;
  std::vector<std::byte*> other_threads;
};
kernel now;

void* take(const void* at) {
  void* const page = ::mmap(const_cast<void*>(at), os::page_size(), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  REQUIRE(page == at);
  now.other_threads.push_back(static_cast<std::byte*>(page));
  std::memset(page, 'o', os::page_size());
  return page;
}

// Address space, beside what this process has.
void leave_room(std::size_t bytes) {
  rlimit limit{};
  ::getrlimit(RLIMIT_AS, &limit);
  std::size_t pages = 0;
  std::ifstream{"/proc/self/statm"} >> pages;
  limit.rlim_cur = pages * os::page_size() + bytes;
  ::setrlimit(RLIMIT_AS, &limit);
}

// As it was before, after a test that changes it, and nothing that others mapped has been touched.
struct usual {
  usual() { now = {}; }
  usual(const usual&) = delete;
  usual& operator=(const usual&) = delete;
  ~usual() {
    for (std::byte* page : now.other_threads) {
      CHECK(page[0] == std::byte{'o'});
      CHECK(page[os::page_size() - 1] == std::byte{'o'});
      ::munmap(page, os::page_size());
    }
    now = {};
  }
};

int segments() { return segments_of(::getpid()); }

std::uint64_t looks = 0;
std::uint64_t other_at_each_look(const char*) noexcept { return 4026531836U + ++looks; }
std::uint64_t unknown_at_first(const char*) noexcept { return looks++ == 0 ? 0 : 4026531836U; }

}  // namespace

// In the place of the C library's, for the whole program.
extern "C" void* shmat(int id, const void* at, int flags) AS_DECLARED {
  ++now.calls;
  if ((flags & SHM_REMAP) != 0 && now.refuses_remap_with != 0) {
    errno = now.refuses_remap_with;
    return reinterpret_cast<void*>(-1);
  }
  if ((flags & SHM_REMAP) == 0 && at != nullptr && now.taken_by_others > 0) {
    --now.taken_by_others;
    take(at);
    if (now.elsewhere) at = nullptr;
    if (now.no_more_room) leave_room(16 * mebibyte);
  }
  return reinterpret_cast<void*>(::syscall(SYS_shmat, id, at, flags));
}

TEST_CASE(
    "where a mapping cannot be replaced, a segment is attached at addresses that were given back before") {
  const usual back;
  now.refuses_remap_with = ENOMEM;
  {
    const mapping made = make(backing::sysv, 3 * mebibyte);
    CHECK(now.calls == 2);
    CHECK(reinterpret_cast<std::uintptr_t>(made.data()) % os::huge_page_size == 0);
    const mapping again = mapping::attach(made.name(), made.size(), tag, starts_with_s, nullptr);
    const mapping view = again.view_read_only();
    again.data()[2 * mebibyte] = std::byte{'x'};
    CHECK(made.data()[2 * mebibyte] == std::byte{'x'});
    CHECK(view.data()[2 * mebibyte] == std::byte{'x'});
    CHECK(::mprotect(view.data(), view.size(), PROT_READ | PROT_WRITE) != 0);
    CHECK(segments() == 1);
  }
  CHECK(segments() == 0);
}

TEST_CASE("addresses that another thread takes meanwhile stay that thread's") {
  const usual back;
  now.refuses_remap_with = ENOMEM;
  for (const bool elsewhere : {false, true}) {
    CAPTURE(elsewhere);
    now.elsewhere = elsewhere;
    now.taken_by_others = 3;
    const std::size_t before = now.other_threads.size();
    mapping made = make(backing::sysv);
    CHECK(now.other_threads.size() == before + 3);
    CHECK(reinterpret_cast<std::uintptr_t>(made.data()) % os::huge_page_size == 0);
    std::memset(made.data(), 1, made.size());
    shmid_ds record{};
    REQUIRE(::shmctl(made.name().id, IPC_STAT, &record) == 0);
    CHECK(record.shm_nattch == 1);  // what came to lie elsewhere was detached
  }
  CHECK(segments() == 0);
}

TEST_CASE(
    "where other threads take the addresses again and again, the attach is refused and nothing is left") {
  const usual back;
  now.refuses_remap_with = ENOMEM;
  now.taken_by_others = 1000;
  CHECK(code_of([] { (void)make(backing::sysv); }) == EINVAL);
  CHECK(now.other_threads.size() == 16);
  CHECK(segments() == 0);
}

TEST_CASE("when there is no address space either, the other thread's addresses are still its own") {
  child limited{[] {
    now = {};
    now.refuses_remap_with = ENOMEM;
    now.taken_by_others = 1;
    now.no_more_room = true;
    if (code_of([] { (void)make(backing::sysv, 64 * mebibyte); }) != ENOMEM) return 1;
    return now.other_threads.at(0)[0] == std::byte{'o'} ? 0 : 2;
  }};
  CHECK(limited.wait() == 0);
}

TEST_CASE("another refusal is not tried again") {
  const usual back;
  now.refuses_remap_with = EACCES;
  CHECK(code_of([] { (void)make(backing::sysv); }) == EACCES);
  CHECK(now.calls == 1);
  CHECK(segments() == 0);
}

TEST_CASE("an arena lies in System V memory that cannot replace a mapping") {
  const usual back;
  now.refuses_remap_with = ENOMEM;
  {
    const auto a = arena::create(tiny);
    CHECK(a->where().segment.kind == backing::sysv);
    allocation first = make(*a, mib, 1);
    const auto other = arena::attach(a->where());
    CHECK(other->statistics().participants == 2);
    CHECK(filled(first.data, mib, 1));
    a->release(first.ref);
  }
  CHECK(segments() == 0);
}

TEST_CASE("namespaces whose number is another one at each look are unknown") {
  looks = 0;
  CHECK(os::steady(other_at_each_look, "/proc/self/ns/pid") == 0);
  CHECK(looks == 2);
  looks = 0;
  CHECK(os::steady(unknown_at_first, "/proc/self/ns/pid") == 0);
  CHECK(os::steady(os::inode_of, "/proc/self/ns/pid") == os::inode_of("/proc/self/ns/pid"));
  CHECK(os::steady(os::inode_of, "/proc/self/ns/pid") != 0);
  CHECK(os::steady(os::inode_of, "/there is no such file") == 0);
}
