#include <doctest.h>

#include <sched.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <optional>

#include <sharedmem/arena.hpp>
#include <sharedmem/error.hpp>

#include "os/identity.hpp"
#include "shared/layout.hpp"

#include "arena_tools.hpp"
#include "arena_words.hpp"
#include "needs.hpp"

using namespace sharedmem;

// Who takes part: known by pids, start times and the census, which other programs and clocks must not confuse.

namespace {

/// A participant that has become another program: its slot stays taken, but it has lost the memory.
std::unique_ptr<child> another_program(arena& a) {
  auto made = fork_from(a, [] {
    ::execl("/bin/sleep", "sleep", "600", static_cast<char*>(nullptr));
    return 1;
  });
  while (maps_segment(static_cast<std::uint32_t>(made->pid()), a.where().segment, true)) ::sched_yield();
  return made;
}

std::ptrdiff_t dead_ones(arena& a) {
  const auto all = a.participants();
  return std::count_if(all.begin(), all.end(),
                       [](const participant_report& p) { return p.what == participant_report::state::dead; });
}

}  // namespace

TEST_CASE("a child that is slow to take its slot keeps its claims, whichever process has called exec") {
  constexpr std::uint64_t bytes = 100'000;  // kept by no thread: the next block takes the place of the last
  const auto a = arena::create(tiny);
  allocation first = make(*a, bytes, 0);  // so that no memory has to be found below
  const auto other = another_program(*a);  // has a slot and no attach; the child below, the other way round
  allocation x = make(*a, bytes, 1);
  channel go;
  const auto late = fork_late(*a, nullptr, [&] {
    (void)go.get<char>();
    arena_hooks::after_fork_in_child(*a);
    const bool kept = filled(x.data, bytes, 1);
    a->release(x.ref);
    a->release(first.ref);
    return kept ? 0 : 1;
  });
  (void)a->collect(false);
  a->release(x.ref);
  allocation y = make(*a, bytes, 2);
  go.put('g');
  CHECK(late->wait() == 0);
  a->release(y.ref);
  a->release(first.ref);
  nothing_left(*a, 2);
}

TEST_CASE("processes are alive when their start times have outgrown their bits") {
  if (!needs_root()) return;
  child outer{[] {
    if (::unshare(CLONE_NEWTIME) != 0) return not_allowed;
    std::ofstream("/proc/self/timens_offsets") << "boottime 171798692 0";  // 2^34 ticks at 100 Hz
    child later{[] {
      const auto a = arena::create(tiny);
      allocation x = make(*a, 5000, 1);
      channel ready;
      auto holder = fork_from(*a, [&] {
        ready.put('r');
        sleep_for_ever();
        return 0;
      });
      (void)ready.get<char>();
      (void)a->collect(false);
      if (dead_ones(*a) != 0 || a->participants().size() != 2) return 1;
      holder->kill();
      if (look_at(this_process()) != liveness::alive) return 2;
      a->release(x.ref);
      nothing_left(*a, 2);
      return 0;
    }};
    return later.wait();
  }};
  const int code = outer.wait();
  if (!needs(code != not_allowed, "a namespace of its own")) return;
  CHECK(code == 0);
}

TEST_CASE(
    "a lease of a dead process waits for its message, whatever clock the process has that noticed the "
    "death") {
  if (!needs_root()) return;
  const auto a = arena::create(tiny);
  channel sent;
  const auto outer = fork_from(*a, [&] {
    std::optional<claim> lost;
    if (::unshare(CLONE_NEWTIME) == 0) {
      std::ofstream("/proc/self/timens_offsets") << "monotonic -120 0";  // more than the grace
      return fork_from(*a,
                       [&] {
                         channel made;
                         const auto sender = fork_from(*a, [&] {
                           made.put(a->share(make(*a, 5000, 1).ref, true));
                           sleep_for_ever();
                           return 0;
                         });
                         lost = made.get<claim>();
                         sender->kill();
                         (void)a->collect(false);
                         sent.put(lost);
                         return 0;
                       })
          ->wait();
    }
    sent.put(lost);  // not allowed here
    return 0;
  });
  CHECK(outer->wait() == 0);
  if (const auto lost = sent.get<std::optional<claim>>(); needs(lost.has_value(), "a namespace of its own")) {
    (void)a->collect(false);
    allocation got = a->acquire(*lost);
    CHECK(filled(got.data, 5000, 1));
    a->release(got.ref);
  }
  nothing_left(*a, 2);
}

TEST_CASE("a process that cannot attach a segment of the arena works without the memory in it") {
  const auto a = arena::create(tiny);
  channel go;
  auto limited = fork_from(*a, [&] {
    std::uint64_t pages = 0;
    std::ifstream{"/proc/self/statm"} >> pages;
    const rlimit limit{pages * 4096 + 48 * mib, pages * 4096 + 48 * mib};
    ::setrlimit(RLIMIT_AS, &limit);
    (void)go.get<char>();
    try {
      for (;;) (void)a->allocate(3 * mib, 64, pages::lazy);
    } catch (const no_memory&) {
      return 0;
    }
  });
  allocation large = a->allocate(64 * mib, 64, pages::lazy);  // in a segment of its own
  go.put('g');
  CHECK(limited->wait() == 0);
  a->release(large.ref);
  nothing_left(*a, 2);
}

TEST_CASE("a joiner repairs what its process held before it called exec, and nothing of the same program") {
  const auto a = arena::create(tiny);
  REQUIRE(a->where().segment.kind == backing::sysv);
  auto same = arena::attach(a->where());  // as another copy of the library in this process
  allocation kept = make(*same, 5000, 1);
  const claim shared = same->share(kept.ref, false);
  CHECK(arena::attach(a->where())->participants().size() == 3);
  CHECK(a->participants().size() == 2);

  auto* base = static_cast<std::byte*>(::shmat(a->where().segment.id, nullptr, 0));
  REQUIRE(base != reinterpret_cast<std::byte*>(-1));
  const auto* head = reinterpret_cast<const header*>(base);
  auto* slots = reinterpret_cast<participant_entry*>(base + head->at_participants);
  CHECK(slots[1].program.load() == this_program());
  for (const bool known : {false, true}) {
    CAPTURE(known);
    slots[1].program.store(known ? this_program() ^ 1 : 0);
    if (known) {  // as after `linger`, which precedes exec
      auto ending = slot_word::from(slots[1].ctl.load());
      ending.state = slot_state::ending;
      slots[1].ctl.store(ending.bits());
    }
    const auto joined = arena::attach(a->where());
    CHECK(joined->participants().size() == (known ? 2 : 3));
    if (known) {
      CHECK_THROWS_AS((void)a->acquire(shared), stale_handle);
    } else {
      allocation got = a->acquire(shared);
      CHECK(filled(got.data, 5000, 1));
      a->release(got.ref);
    }
  }
  ::shmdt(base);
}

TEST_CASE(
    "a child that is being forked keeps its slot, whoever else of its parent's process is in the arena") {
  constexpr std::uint64_t bytes = 100'000;
  const auto a = arena::create(tiny);
  const auto same = arena::attach(a->where());  // as another copy of the library in this process
  allocation x = make(*a, bytes, 1);
  channel go;
  const auto ready = [&] { (void)same->collect(false); };
  const auto late = fork_late(*a, ready, [&] {
    (void)go.get<char>();
    arena_hooks::after_fork_in_child(*a);
    const bool kept = filled(x.data, bytes, 1);
    a->release(x.ref);
    return kept ? 0 : 1;
  });
  a->release(x.ref);
  allocation y = make(*a, bytes, 2);
  go.put('g');
  CHECK(late->wait() == 0);
  a->release(y.ref);
  (void)a->collect(false);

  arena_hooks::prepare_fork(*a);
  arena_hooks::after_fork_in_parent(*a);  // the fork has failed
  (void)same->collect(false);
  CHECK(same->participants().size() == 3);
  (void)a->collect(false);
  CHECK(same->participants().size() == 2);
}

TEST_CASE("the slot of a child that was never forked is repaired by the next program of its process") {
  const auto a = arena::create(tiny);
  REQUIRE(a->where().segment.kind == backing::sysv);
  arena_hooks::prepare_fork(*a);
  arena_hooks::after_fork_in_parent(*a);
  const arena_words words(*a);
  words.slot(1).program.store(this_program() ^ 1);
  words.slot(1).reserver.store(100);  // a slot that this program has not
  (void)a->collect(false);
  CHECK(a->participants().size() == 1);
}
