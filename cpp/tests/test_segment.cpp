#include <doctest.h>

#include <dlfcn.h>
#include <signal.h>
#include <sys/shm.h>

#include <cstring>

#include <sharedmem/segment.hpp>
#include "os/census.hpp"
#include "os/memory.hpp"
#include "segment/mapping.hpp"

#include "child.hpp"
#include "replaced.hpp"

using namespace sharedmem;

namespace {

enum class death { none, before_attach, before_mark };
death dies = death::none;  // where this process kills itself

template <class F>
F* next_of(const char* name) {
  return reinterpret_cast<F*>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

// In front of the C library's: the last moments at which a segment is left behind.
extern "C" void* shmat(int id, const void* at, int flags) AS_DECLARED {
  if (dies == death::before_attach) ::raise(SIGKILL);
  return next_of<void*(int, const void*, int)>("shmat")(id, at, flags);
}
extern "C" int shmctl(int id, int command, shmid_ds* record) AS_DECLARED {
  if (dies == death::before_mark && command == IPC_RMID) ::raise(SIGKILL);
  return next_of<int(int, int, shmid_ds*)>("shmctl")(id, command, record);
}

namespace {

bool exists(int id) {
  shmid_ds record{};
  return ::shmctl(id, IPC_STAT, &record) == 0;
}

// The segment that process `pid` made, or -1.
int made_by(pid_t pid) {
  struct shm_info totals{};
  const int last = ::shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&totals));
  for (int index = 0; index <= last; ++index) {
    shmid_ds record{};
    const int id = ::shmctl(index, SHM_STAT, &record);
    if (id >= 0 && record.shm_cpid == pid) return id;
  }
  return -1;
}

// As a process leaves it that was killed while it made a segment.
template <class F>
int killed_in(death where, F&& making) {
  child maker{[&] {
    dies = where;
    (void)making();
    return 0;
  }};
  const pid_t pid = maker.pid();
  CHECK(maker.wait() == -SIGKILL);
  return made_by(pid);
}

// A stranger's, that has ended: System V segments are meant to persist.
int abandoned(key_t key, int mode = 0600, std::size_t bytes = 4096, const char* text = nullptr) {
  channel ids;
  child maker{[&] {
    const int id = ::shmget(key, bytes, IPC_CREAT | IPC_EXCL | mode);
    if (void* at = ::shmat(id, nullptr, 0); text != nullptr) std::strcpy(static_cast<char*>(at), text);
    ids.put(id);
    return 0;
  }};
  maker.wait();
  return ids.get<int>();
}

// A key of a pattern that no other program uses, and that is not one of this library's by chance.
key_t key_like(unsigned pattern) {
  static unsigned made = 0;
  return static_cast<key_t>(pattern | ((static_cast<unsigned>(::getpid()) + made++) & 0xffffU));
}

}  // namespace

TEST_CASE("segments that their maker could not mark are swept") {
  const auto arena = [] { return mapping::create(backing::sysv, std::size_t{2} << 20, 0); };
  const auto count = [] { return census::create(); };
  for (const death where : {death::before_attach, death::before_mark}) {
    CAPTURE(static_cast<int>(where));
    const int one = killed_in(where, arena);
    const int other = killed_in(where, count);
    CHECK(exists(one));
    CHECK(exists(other));
    CHECK(sweep_orphans() == 2);
    CHECK_FALSE(exists(one));
    CHECK_FALSE(exists(other));
  }
}

TEST_CASE("a stranger's segment stays, whatever its key, with data in it or without") {
  for (const unsigned keys : {0x534d0000U, 0x534e0000U})
    for (const int mode : {0600, 0644})
      for (const char* text : {static_cast<const char*>(nullptr), "balance: 1000000", "sharedmem count"}) {
        CAPTURE(keys);
        CAPTURE(mode);
        const int id = abandoned(key_like(keys), mode, 4096, text);
        REQUIRE(id >= 0);
        CHECK(sweep_orphans() == 0);
        CHECK(exists(id));
        ::shmctl(id, IPC_RMID, nullptr);
      }
}

TEST_CASE("a segment with a key of those by which processes meet stays if none of them makes it so large") {
  constexpr std::size_t huge = std::size_t{2} << 20;
  for (const std::size_t bytes : {std::size_t{4095}, huge, huge + 4096, 2 * huge + 100}) {
    CAPTURE(bytes);
    const int id = abandoned(key_like(0x53800000), 0600, bytes);
    REQUIRE(id >= 0);
    CHECK(sweep_orphans() == 0);
    CHECK(exists(id));
    ::shmctl(id, IPC_RMID, nullptr);
  }
}

TEST_CASE("a segment that was left behind but is used by another program stays") {
  for (const bool arena : {true, false}) {
    CAPTURE(arena);
    const int id = killed_in(death::before_attach, [arena] {
      if (arena) return mapping::create(backing::sysv, 8192, 0).size();
      return static_cast<std::size_t>(census::create().processes());
    });
    void* at = ::shmat(id, nullptr, 0);
    REQUIRE(at != reinterpret_cast<void*>(-1));
    CHECK(sweep_orphans() == 0);  // attached
    std::strcpy(static_cast<char*>(at), "balance: 1000000");
    ::shmdt(at);
    CHECK(sweep_orphans() == 0);
    CHECK(exists(id));
    ::shmctl(id, IPC_RMID, nullptr);
  }
}

TEST_CASE("segments of other keys, living makers or attached processes are left alone") {
  const int foreign = abandoned(key_like(0x534f0000));
  const int young = ::shmget(key_like(0x534d0000), 4096, IPC_CREAT | IPC_EXCL | 0600);
  channel ids, attached;
  child maker{[&] {
    ids.put(::shmget(key_like(0x534e0000), 4096, IPC_CREAT | IPC_EXCL | 0600));
    (void)attached.get<char>();
    return 0;
  }};
  const int used = ids.get<int>();
  REQUIRE(foreign >= 0);
  REQUIRE(young >= 0);
  REQUIRE(used >= 0);
  void* base = ::shmat(used, nullptr, 0);
  REQUIRE(base != reinterpret_cast<void*>(-1));
  attached.put('a');
  maker.wait();
  sweep_orphans();
  CHECK(exists(foreign));
  CHECK(exists(young));
  CHECK(exists(used));
  ::shmdt(base);
  for (const int id : {foreign, young, used}) ::shmctl(id, IPC_RMID, nullptr);
}
