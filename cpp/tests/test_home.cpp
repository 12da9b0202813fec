#include <doctest.h>

#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include <sharedmem/home.hpp>
#include "os/identity.hpp"

#include "arena_tools.hpp"
#include "needs.hpp"

using namespace sharedmem;

// Each test's processes have arenas of their own; this one has none, and gets those that have lost their parent.

namespace {

struct message {
  pid_t sender = 0;
  claim what;
  char where[160] = {};

  locator arena_of_sender() const { return *parse_locator(where); }
};

/// A process that sends an array, which is not read, and then ends by `end`.
/// \param status  how it is expected to end: an exit status, or a signal's negative number.
template <class End>
message send_and(const char* linger_seconds, End&& end, int status = 0) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  channel sent;
  child sender([&] {
    ::unsetenv("SHAREDMEM_ARENA");
    ::setenv("SHAREDMEM_ARENA_SIZE", "32MiB", 1);
    ::setenv("SHAREDMEM_LINGER", linger_seconds, 1);
    allocation x = make(home(), 5000, 1);
    message m{::getpid(), home().share(x.ref, true), {}};
    home_locator().copy(m.where, sizeof m.where - 1);
    release(x.ref);
    sent.put(m);
    return end();
  });
  const message m = sent.get<message>();
  CHECK(sender.wait() == status);
  return m;
}

int leave_in_order() {
  linger();
  return 0;
}

/// Whether the message can be read, by a process that has no arena yet.
int read_message(const message& m) {
  ::unsetenv("SHAREDMEM_ARENA");
  try {
    allocation got = acquire(m.arena_of_sender(), m.what);
    const bool right = filled(got.data, 5000, 1);
    release(got.ref);
    return right ? 0 : 2;
  } catch (const stale_handle&) {
    return 1;
  }
}

/// Waits for the processes that have become ours, the lingering ones.
int orphans() {
  int number = 0;
  while (::waitpid(-1, nullptr, 0) > 0) ++number;
  return number;
}

}  // namespace

TEST_CASE("a lone sender that ends in order leaves a process until its message is read") {
  const message m = send_and("60", leave_in_order);
  CHECK(segments_of(m.sender) > 0);
  CHECK(child([&] { return read_message(m); }).wait() == 0);
  CHECK(orphans() == 1);
  CHECK(segments_of(m.sender) == 0);
}

TEST_CASE("the message of a lone sender in a memfd arena stays reachable after its end") {
  if (!needs_root()) return;
  child outer([] {
    if (::unshare(CLONE_NEWIPC) != 0 || !(std::ofstream("/proc/sys/kernel/shmmni") << "0" << std::flush))
      return not_allowed;
    const message m = send_and("60", leave_in_order);
    if (m.arena_of_sender().segment.kind != backing::memfd) return 1;
    if (child([&] { return read_message(m); }).wait() != 0) return 2;
    return orphans() == 1 ? 0 : 3;
  });
  const int code = outer.wait();
  if (!needs(code != not_allowed, "a namespace of its own")) return;
  CHECK(code == 0);
}

TEST_CASE("a lingering process ends by itself when no process attaches") {
  const message m = send_and("0.2", leave_in_order);
  CHECK(orphans() == 1);
  CHECK(segments_of(m.sender) == 0);
  CHECK(child([&] { return read_message(m); }).wait() == 1);
}

TEST_CASE("no process lingers where that is switched off, or after a disorderly end") {
  for (const bool switched_off : {true, false}) {
    const auto killed = [] { return ::raise(SIGKILL); };
    const message m = switched_off ? send_and("0", leave_in_order) : send_and("60", killed, -SIGKILL);
    CHECK(orphans() == 0);
    CHECK(segments_of(m.sender) == 0);
    CHECK(child([&] { return read_message(m); }).wait() == 1);
  }
}

TEST_CASE("no process lingers without a message, nor while another participant is there") {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  child alone([] {
    ::unsetenv("SHAREDMEM_ARENA");
    allocation x = make(home(), 5000, 1);
    (void)home().share(x.ref, false);
    linger();
    return 0;
  });
  CHECK(alone.wait() == 0);
  CHECK(orphans() == 0);
  channel read;
  const message m = send_and("60", [&] {
    channel there;
    if (::fork() == 0) {  // in the arena as well, and there until the message was read
      there.put('t');
      (void)read.get<char>();
      ::_exit(0);
    }
    (void)there.get<char>();
    linger();
    return 0;
  });
  CHECK(child([&] { return read_message(m); }).wait() == 0);
  read.put('r');
  CHECK(orphans() == 1);
}

TEST_CASE("under a limit of address space arenas are smaller, and grow") {
  child limited([] {
    ::unsetenv("SHAREDMEM_ARENA");
    std::uint64_t pages = 0;
    std::ifstream{"/proc/self/statm"} >> pages;
    const rlimit limit{pages * 4096 + 700 * mib, pages * 4096 + 700 * mib};
    ::setrlimit(RLIMIT_AS, &limit);
    allocation kept = make(home(), 5000, 1);
    if (home().statistics().arena_bytes > 700 * mib) return 1;
    std::vector<allocation> all;
    try {
      for (std::uint64_t i = 0; i < 100; ++i) all.push_back(make(home(), 10 * mib, i));
      return 2;
    } catch (const no_memory& refused) {
      if (std::string(refused.what()).find("10.0 MiB") == std::string::npos) return 3;
    }
    if (all.size() < 20) return 4;
    for (std::uint64_t i = 0; i < all.size(); ++i)
      if (!filled(all[i].data, 10 * mib, i)) return 5;
    release(all.back().ref);
    allocation again = make(home(), 10 * mib, 7);
    return filled(again.data, 10 * mib, 7) && filled(kept.data, 5000, 1) ? 0 : 6;
  });
  CHECK(limited.wait() == 0);
}
