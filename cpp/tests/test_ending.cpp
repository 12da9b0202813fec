#include <doctest.h>

#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include <sharedmem/home.hpp>
#include <sharedmem/inspect.hpp>
#include "os/identity.hpp"

#include "arena_tools.hpp"

using namespace sharedmem;

// Participants that have begun to end: whom others count on, and what is repaired when they die.

namespace {

struct message {
  claim what;
  char where[160] = {};
};

/// A message from this process's home arena, whose array it has dropped.
message sent_from_home() {
  allocation x = make(home(), 5000, 1);
  message m{home().share(x.ref, true), {}};
  home_locator().copy(m.where, sizeof m.where - 1);
  release(x.ref);
  return m;
}

/// The same from an extension segment that is made for it.
message sent_from_new_extension() {
  const std::uint32_t before = home().statistics().segments;
  std::vector<allocation> filling;
  while (home().statistics().segments == before) filling.push_back(allocate(4 * mib, 64, pages::lazy));
  fill(filling.back().data, 5000, 1);
  message m{home().share(filling.back().ref, true), {}};
  home_locator().copy(m.where, sizeof m.where - 1);
  for (allocation& x : filling) release(x.ref);
  return m;
}

void start_tree(const char* linger_seconds) {
  ::unsetenv("SHAREDMEM_ARENA");
  ::setenv("SHAREDMEM_ARENA_SIZE", "32MiB", 1);
  ::setenv("SHAREDMEM_LINGER", linger_seconds, 1);
}

/// Whether the message can be read, by a process that has no arena yet.
bool can_be_read(const message& m) {
  return child([&] {
           ::unsetenv("SHAREDMEM_ARENA");
           try {
             allocation got = acquire(*parse_locator(m.where), m.what);
             const bool right = filled(got.data, 5000, 1);
             release(got.ref);
             return right ? 0 : 2;
           } catch (const stale_handle&) {
             return 1;
           }
         }).wait() == 0;
}

/// Waits for the processes that have become ours, the lingering ones.
int orphans() {
  int number = 0;
  while (::waitpid(-1, nullptr, 0) > 0) ++number;
  return number;
}

/// A participant that has become another program: its slot stays taken, but it has lost the memory.
std::unique_ptr<child> another_program(arena& a, bool ends_first) {
  auto made = fork_from(a, [&] {
    if (ends_first) arena_hooks::begin_to_end(a);
    ::execl("/bin/sleep", "sleep", "600", static_cast<char*>(nullptr));
    return 1;
  });
  while (maps_segment(static_cast<std::uint32_t>(made->pid()), a.where().segment, true))
    std::this_thread::yield();
  return made;
}

std::size_t active_ones(arena& a) {
  const auto all = a.participants();
  return static_cast<std::size_t>(std::count_if(all.begin(), all.end(), [](const participant_report& p) {
    return p.what == participant_report::state::active;
  }));
}

}  // namespace

TEST_CASE("of two that begin to end before either looks, neither counts on the other") {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  channel sent;
  child first([&] {
    start_tree("60");
    sent.put(sent_from_home());
    channel marked, go;
    child second([&] {
      arena_hooks::begin_to_end(home());
      marked.put('m');
      (void)go.get<char>();
      linger();
      return 0;
    });
    (void)marked.get<char>();
    linger();  // the other one is alive, and waits
    go.put('g');
    return second.wait();
  });
  const message m = sent.get<message>();
  CHECK(first.wait() == 0);
  CHECK(can_be_read(m));
  CHECK(orphans() == 2);
}

TEST_CASE("an ending process relies on one that has not begun to end, and leaves no process behind") {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  channel sent;
  channel read;
  child outer([&] {
    start_tree("60");
    const message m = sent_from_home();
    channel there;
    const pid_t self = ::getpid();
    if (::fork() == 0) {
      there.put('t');
      while (::getppid() == self) std::this_thread::yield();
      sent.put(m);
      (void)read.get<char>();
      ::_exit(0);
    }
    (void)there.get<char>();
    linger();
    return 0;
  });
  const message m = sent.get<message>();
  CHECK(outer.wait() == 0);
  CHECK(can_be_read(m));
  read.put('r');
  CHECK(orphans() == 1);
}

TEST_CASE(
    "a message in a segment that no other process has attached is kept although another process stays") {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  channel sent, there, end;
  child outer([&] {
    start_tree("60");
    (void)home();
    if (::fork() == 0) {  // has the first segment, and never looks for another
      there.put('t');
      (void)end.get<char>();
      ::_exit(0);
    }
    (void)there.get<char>();
    sent.put(sent_from_new_extension());
    linger();
    return 0;
  });
  const message m = sent.get<message>();
  CHECK(outer.wait() == 0);
  CHECK(can_be_read(m));
  end.put('e');
  CHECK(orphans() == 2);
}

TEST_CASE("an ending process does not rely on one that has become another program") {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  channel sent, pid;
  child sender([&] {
    start_tree("60");
    const message m = sent_from_home();
    const pid_t other = ::fork();
    if (other == 0) {
      ::execl("/bin/sleep", "sleep", "600", static_cast<char*>(nullptr));
      ::_exit(1);
    }
    while (maps_segment(static_cast<std::uint32_t>(other), home().where().segment, true))
      std::this_thread::yield();
    sent.put(m);
    pid.put(other);
    linger();
    return 0;
  });
  const message m = sent.get<message>();
  CHECK(sender.wait() == 0);
  CHECK(can_be_read(m));
  ::kill(pid.get<pid_t>(), SIGKILL);
  CHECK(orphans() == 2);
}

TEST_CASE("a participant that has begun to end works like any other, and is repaired like any other") {
  const auto a = arena::create(tiny);
  channel ready;
  auto ending = fork_from(*a, [&] {
    arena_hooks::begin_to_end(*a);
    allocation kept = make(*a, 3 * mib, 1);
    (void)a->share(kept.ref, false);
    ready.put(a->share(make(*a, 5000, 2).ref, true));
    sleep_for_ever();
    return 0;
  });
  const auto sent = ready.get<claim>();
  (void)a->collect(false);
  CHECK(active_ones(*a) == 2);
  CHECK(a->statistics().participants == 2);
  CHECK(a->statistics().shared_blocks == 2);
  a->check();
  ending->kill();
  (void)a->collect(false);
  CHECK(a->participants().size() == 1);
  CHECK(a->statistics().shared_blocks == 1);
  allocation got = a->acquire(sent);
  CHECK(filled(got.data, 5000, 2));
  a->release(got.ref);
  nothing_left(*a);
}

TEST_CASE("a participant that has begun to end is one of those that the census counts") {
  const auto a = arena::create(tiny);
  channel ready;
  auto ending = fork_from(*a, [&] {
    arena_hooks::begin_to_end(*a);
    ready.put('r');
    sleep_for_ever();
    return 0;
  });
  (void)ready.get<char>();
  for (const bool ends_first : {false, true}) {
    const auto other = another_program(*a, ends_first);
    (void)a->collect(false);
    CHECK(active_ones(*a) == 2);
    CHECK(a->participants().size() == 2);  // the slot of who has become another program is free again
  }
  arena_hooks::prepare_fork(*a);
  arena_hooks::after_fork_in_parent(*a);  // as if fork had failed
  CHECK(a->participants().size() == 3);
  (void)a->collect(false);
  CHECK(a->participants().size() == 2);
  ending->kill();
  nothing_left(*a, 2);
}

TEST_CASE("what lingers takes the slot over when its parent has ended") {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  channel sent;
  child sender([&] {
    start_tree("60");
    sent.put(sent_from_home());
    linger();
    return 0;
  });
  const message m = sent.get<message>();
  const auto parent = static_cast<std::uint32_t>(sender.pid());
  CHECK(sender.wait() == 0);
  const locator where = *parse_locator(m.where);
  std::vector<participant_report> found;
  do {
    found = inspect(where.segment, where.uuid[0]).value().participants;
  } while (found.size() == 1 && found[0].what == participant_report::state::dead);
  REQUIRE(found.size() == 1);
  CHECK(found[0].what == participant_report::state::active);
  CHECK(found[0].pid != parent);
  CHECK(can_be_read(m));
  CHECK(orphans() == 1);
}

TEST_CASE("a process that has begun to end can leave its slot") {
  const auto a = arena::create(tiny);
  auto leaving = fork_from(*a, [&] {
    auto mine = arena::attach(a->where());
    arena_hooks::begin_to_end(*mine);
    mine.reset();
    return 0;
  });
  CHECK(leaving->wait() == 0);
  CHECK(a->participants().size() == 2);  // the other one exists because of the fork
  (void)a->collect(false);
  CHECK(a->participants().size() == 1);
  nothing_left(*a, 2);
}

TEST_CASE("an arena in which a lease of any process is in use is not idle") {
  const auto a = arena::create(tiny);
  CHECK(a->idle());
  allocation x = make(*a, 5000, 1);
  CHECK(!a->idle());
  const claim own = a->share(x.ref, true);
  a->release(x.ref);
  CHECK(!a->idle());
  a->give_back(own);
  CHECK(a->idle());
  channel sent;
  auto other = fork_from(*a, [&] {
    sent.put(a->share(make(*a, 5000, 2).ref, true));
    sleep_for_ever();
    return 0;
  });
  const auto theirs = sent.get<claim>();
  CHECK(!a->idle());
  other->kill();
  (void)a->collect(false);
  CHECK(!a->idle());
  allocation got = a->acquire(theirs);
  a->release(got.ref);
  CHECK(a->idle());
  nothing_left(*a);
}

TEST_CASE("any thread may be the one that ends") {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  channel sent;
  child sender([&] {
    start_tree("60");
    std::thread([&] {
      sent.put(sent_from_home());
      linger();
    }).join();
    return 0;
  });
  const message m = sent.get<message>();
  CHECK(sender.wait() == 0);
  CHECK(can_be_read(m));
  CHECK(orphans() == 1);
}

TEST_CASE(
    "a process that goes on after its linger, and calls it again, leaves one process that waits for its "
    "end") {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  channel sent, looked;
  child sender([&] {
    start_tree("0.5");
    message m = sent_from_home();
    linger();
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));  // longer than it is kept
    m = sent_from_home();
    linger();
    sent.put(m);
    return 0;
  });
  const message m = sent.get<message>();
  CHECK(sender.wait() == 0);
  CHECK(can_be_read(m));
  CHECK(orphans() == 1);
}
