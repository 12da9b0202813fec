#include <doctest.h>

#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#include <cstring>
#include <thread>

#include "os/identity.hpp"
#include "segment/mapping.hpp"

#include "child.hpp"
#include "needs.hpp"

using namespace sharedmem;

namespace {

process_id of(pid_t pid, std::uint64_t start = 0) { return {static_cast<std::uint32_t>(pid), start}; }

}  // namespace

TEST_CASE("this process has a pid, a start time and namespaces, and is alive") {
  const process_id self = this_process();
  CHECK(self.pid == static_cast<std::uint32_t>(::getpid()));
  CHECK(self.start > 0);
  CHECK(self == this_process());
  CHECK(this_namespaces().pid != 0);
  CHECK(this_namespaces() == this_namespaces());
  CHECK(look_at(self) == liveness::alive);
  CHECK_FALSE(is_exiting(self.pid));
}

TEST_CASE("a child is another process, alive until it ends, dead as a zombie and after") {
  channel ids;
  child running{[&] {
    ids.put(this_process());
    sleep_for_ever();
    return 0;
  }};
  const process_id its = ids.get<process_id>();
  CHECK(its.pid == static_cast<std::uint32_t>(running.pid()));
  CHECK(its.start >= this_process().start);
  CHECK(look_at(its) == liveness::alive);
  ::kill(running.pid(), SIGKILL);
  running.wait_for_zombie();
  CHECK(look_at(its) == liveness::dead);
  CHECK(look_at(of(running.pid())) == liveness::dead);
  CHECK(is_exiting(its.pid));
  running.wait();
  CHECK(look_at(its) == liveness::dead);
  CHECK(is_exiting(its.pid));
}

TEST_CASE("a pid with another start time was used again") {
  process_id self = this_process();
  self.start -= 1;
  CHECK(look_at(self) == liveness::dead);
}

TEST_CASE("without a start time a running process may be either") {
  CHECK(look_at(of(::getpid())) == liveness::unknown);
  CHECK(look_at(of(0, 1)) == liveness::unknown);
  CHECK(look_at({0xffffffffU, 1}) == liveness::unknown);
}

TEST_CASE("a process whose first thread has ended is alive") {
  channel ids;
  child runs{[&] {
    const process_id self = this_process();
    std::thread{[&ids, self] {
      while (look_at(self) != liveness::alive) sched_yield();
      ids.put(self);
      sleep_for_ever();
    }}.detach();
    ::syscall(SYS_exit, 0);  // this thread alone; pthread_exit would unwind through the test
    return 1;
  }};
  const process_id its = ids.get<process_id>();
  // Until its first thread shows as a zombie.
  while (!is_exiting(its.pid)) sched_yield();
  CHECK(look_at(its) == liveness::alive);
}

TEST_CASE("a /proc of other namespaces proves no death") {
  if (!needs_root()) return;
  child outer{[] {
    if (::unshare(CLONE_NEWPID) != 0) return not_allowed;
    child first{[] {
      channel ids;
      child second{[&] {
        ids.put(this_process());
        sleep_for_ever();
        return 0;
      }};
      const process_id its = ids.get<process_id>();
      const bool kept = look_at(its) != liveness::dead && is_exiting(its.pid) &&
                        maps_segment(its.pid, {backing::sysv, 1, 0}, true);
      second.kill();
      return kept && look_at(its) == liveness::dead ? 0 : 1;
    }};
    return first.wait();
  }};
  const int code = outer.wait();
  if (!needs(code != not_allowed, "a namespace of its own")) return;
  CHECK(code == 0);
}

TEST_CASE("hidden processes are not dead") {
  if (!needs_root()) return;
  const process_id parent = this_process();
  child outer{[&] {
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("proc", "/proc", "proc", 0, "hidepid=2") != 0 || ::setgroups(0, nullptr) != 0 ||
        ::setgid(65534) != 0 || ::setuid(65534) != 0) {
      return not_allowed;
    }
    const bool kept = look_at(parent) == liveness::unknown && is_exiting(parent.pid) &&
                      maps_segment(parent.pid, {backing::sysv, 1, 0}, true) &&
                      !maps_segment(parent.pid, {backing::sysv, 1, 0}, false);
    return kept ? 0 : 1;
  }};
  const int code = outer.wait();
  if (!needs(code != not_allowed, "a namespace of its own")) return;
  CHECK(code == 0);
}

TEST_CASE("a segment is seen in the address space of those that have it") {
  channel ready;
  const auto self = static_cast<std::uint32_t>(::getpid());
  for (const backing kind : {backing::sysv, backing::memfd}) {
    CAPTURE(static_cast<int>(kind));
    child before{[] {
      sleep_for_ever();
      return 0;
    }};
    mapping made = mapping::create(kind, 1 << 20, 7);
    const segment_name name = made.name();
    child has{[&] {
      ready.put(0);
      sleep_for_ever();
      return 0;
    }};
    child had{[&] {
      made = mapping{};
      ready.put(0);
      sleep_for_ever();
      return 0;
    }};
    ready.get<int>();
    ready.get<int>();
    CHECK(maps_segment(self, name, false));
    CHECK(maps_segment(static_cast<std::uint32_t>(has.pid()), name, false));
    CHECK_FALSE(maps_segment(static_cast<std::uint32_t>(had.pid()), name, true));
    CHECK_FALSE(maps_segment(static_cast<std::uint32_t>(before.pid()), name, true));
    has.kill();
    // Nothing to read: the caller's choice.
    const pid_t gone = before.pid();
    before.kill();
    CHECK(maps_segment(static_cast<std::uint32_t>(gone), name, true));
    CHECK_FALSE(maps_segment(static_cast<std::uint32_t>(gone), name, false));
  }
  CHECK_FALSE(maps_segment(self, {}, true));
}

TEST_CASE("host_id is not 0 and equal in a child") {
  const std::uint64_t mine = host_id();
  CHECK(mine != 0);
  child other{[&] { return host_id() == mine ? 0 : 1; }};
  CHECK(other.wait() == 0);
}

TEST_CASE("random bytes fill the whole buffer") {
  unsigned char first[1000] = {};
  unsigned char second[1000] = {};
  random_bytes(first, sizeof first);
  random_bytes(second, sizeof second);
  CHECK(std::memcmp(first, second, sizeof first) != 0);
  CHECK(std::memcmp(first + 900, first, 100) != 0);
  random_bytes(nullptr, 0);
}
