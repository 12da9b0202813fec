#include <doctest.h>

#include <sys/shm.h>

#include <sharedmem/segment.hpp>

#include "child.hpp"

using namespace sharedmem;

namespace {

bool exists(int id) {
  shmid_ds record{};
  return ::shmctl(id, IPC_STAT, &record) == 0;
}

// As a process leaves it that was killed right after shmget.
int abandoned(key_t key) {
  channel ids;
  child maker{[&] {
    ids.put(::shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600));
    return 0;
  }};
  maker.wait();
  return ids.get<int>();
}

// A key that nobody has, of a pattern.
key_t key_like(unsigned pattern) {
  return static_cast<key_t>(pattern | (static_cast<unsigned>(::getpid()) & 0xffffU));
}

}  // namespace

TEST_CASE("segments that their maker could not mark are swept") {
  std::size_t swept = 0;
  for (int i = 0; i < 100 && swept < 2; ++i) {  // whoever makes an arena meanwhile sweeps as well
    const int arena = abandoned(key_like(0x534d0000));
    const int census = abandoned(key_like(0x534e0000));
    REQUIRE(arena >= 0);
    REQUIRE(census >= 0);
    swept = sweep_orphans();
    CHECK_FALSE(exists(arena));
    CHECK_FALSE(exists(census));
  }
  CHECK(swept >= 2);
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
