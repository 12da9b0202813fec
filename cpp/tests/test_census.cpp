#include <doctest.h>

#include <sys/shm.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include <sharedmem/error.hpp>
#include "os/census.hpp"
#include "os/memory.hpp"
#include "os/pages.hpp"
#include "segment/mapping.hpp"

#include "child.hpp"
#include "needs.hpp"

using namespace sharedmem;

TEST_CASE("an empty census counts no process") {
  const census none;
  CHECK_FALSE(none);
  CHECK(none.id() == -1);
  CHECK(none.processes() == 0);
}

TEST_CASE("a census counts processes through fork, exit, kill and exec") {
  channel ready;
  const census all = census::create();
  REQUIRE(all);
  CHECK(all.processes() == 1);
  {
    child killed{[&] {
      ready.put(all.processes());
      sleep_for_ever();
      return 0;
    }};
    CHECK(ready.get<int>() == 2);
    CHECK(all.processes() == 2);
    ::kill(killed.pid(), SIGKILL);
    killed.wait_for_zombie();
    CHECK(all.processes() == 1);
  }
  child leaves{[&] {
    census mine = std::move(const_cast<census&>(all));
    mine = census{};
    ready.put(0);
    sleep_for_ever();
    return 0;
  }};
  ready.get<int>();
  CHECK(all.processes() == 1);
  child execs{[] {
    ::execl("/bin/sh", "sh", "-c", "kill -STOP $$", static_cast<char*>(nullptr));
    return 1;
  }};
  siginfo_t info{};
  ::waitid(P_PID, static_cast<id_t>(execs.pid()), &info, WSTOPPED | WEXITED | WNOWAIT);
  CHECK(all.processes() == 1);
}

TEST_CASE("a process that did not inherit the census attaches it") {
  channel ids;
  channel counts;
  child joins{[&] {
    const census other = census::attach(ids.get<std::int32_t>());
    counts.put(other.processes());
    sleep_for_ever();
    return 0;
  }};
  const census all = census::create();
  ids.put(all.id());
  CHECK(counts.get<int>() == 2);
  CHECK(all.processes() == 2);
  joins.kill();
  CHECK(all.processes() == 1);
}

TEST_CASE("moving keeps the attach") {
  census first = census::create();
  const int id = first.id();
  census second{std::move(first)};
  CHECK_FALSE(first);  // NOLINT: the state after a move is promised
  CHECK(second.id() == id);
  first = std::move(second);
  CHECK(first.processes() == 1);
}

TEST_CASE("a segment that no longer exists, or is not a census, is stale") {
  int id = -1;
  {
    const census short_lived = census::create();
    id = short_lived.id();
  }
  CHECK_THROWS_AS((void)census::attach(id), stale_handle);
  CHECK_THROWS_AS((void)census::attach(-1), stale_handle);
  const mapping page = mapping::create(backing::sysv, os::page_size(), 0);
  CHECK_THROWS_AS((void)census::attach(page.name().id), stale_handle);
  const mapping larger = mapping::create(backing::sysv, 2 * os::page_size(), 0);
  CHECK_THROWS_AS((void)census::attach(larger.name().id), stale_handle);
  shmid_ds record{};
  REQUIRE(::shmctl(page.name().id, IPC_STAT, &record) == 0);
  CHECK(record.shm_nattch == 1);
}

TEST_CASE("the census of another user is refused") {
  if (!needs_root()) return;
  channel ids;
  child other{[&] {
    if (::setuid(65534) != 0) return 1;
    const census theirs = census::create();
    ids.put(theirs.id());
    sleep_for_ever();
    return 0;
  }};
  const int id = ids.get<std::int32_t>();
  try {
    (void)census::attach(id);
    FAIL("attached");
  } catch (const error& failure) {
    CHECK(failure.code().value() == EPERM);
  }
}
