/// What the dead held comes back, whichever process repairs, also in parts of the arena that it had not attached.
#include <doctest.h>

#include <dlfcn.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <sharedmem/arena.hpp>
#include <sharedmem/error.hpp>

#include "arena_tools.hpp"
#include "arena_words.hpp"

using namespace sharedmem;

namespace {

std::function<void(pid_t)> when_looked_at;  // called once, by the first look whether a process lives
std::uint64_t seconds_ahead = 0;  // of the clock
bool clock_stands = false;  // at what it showed last
long cores = 0;  // 0: as many as there are

}  // namespace

// The library's calls end here as well: symbols of the program come first.
extern "C" int kill(pid_t pid, int number) noexcept {
  if (number == 0 && when_looked_at) std::exchange(when_looked_at, nullptr)(pid);
  return static_cast<int>(::syscall(SYS_kill, pid, number));
}
extern "C" int clock_gettime(clockid_t clock, timespec* now) noexcept {
  static timespec shown{};
  if (clock == CLOCK_MONOTONIC && clock_stands) {
    *now = shown;
    return 0;
  }
  const auto result = static_cast<int>(::syscall(SYS_clock_gettime, clock, now));
  if (clock != CLOCK_MONOTONIC) return result;
  now->tv_sec += static_cast<time_t>(seconds_ahead);
  shown = *now;
  return result;
}
// The thread sanitizer calls this as well, before it is ready for a function that it watches or for a guarded static.
extern "C" [[gnu::no_sanitize("thread")]] long sysconf(int name) noexcept {
  static long (*system)(int) = nullptr;
  if (system == nullptr) system = reinterpret_cast<long (*)(int)>(::dlsym(RTLD_NEXT, "sysconf"));
  return name == _SC_NPROCESSORS_CONF && cores != 0 ? cores : system(name);
}

namespace {

/// A process that adds a segment to the arena and shares a block there, and its child, which has that segment
/// attached and holds nothing.
class extender {
 public:
  /// `sent`: the block is not held by the process any more, a lease of it is out.
  extender(arena& a, bool sent) {
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);  // the child's parent may be killed
    process_ = fork_from(a, [&a, sent, this] {
      ready_.put(::getpid());
      (void)go_.get<char>();
      allocation beyond = a.allocate(tiny, 64, pages::lazy);
      fill(beyond.data, tiny, 1);
      (void)a.share(beyond.ref, sent);
      auto witness = fork_from(a, [&] {
        a.release(beyond.ref);
        released_.put(::getpid());
        (void)go_on_.get<char>();
        return 0;
      });
      witness_ = released_.get<pid_t>();
      if (sent) a.release(beyond.ref);
      ready_.put(witness_);
      sleep_for_ever();
      return 0;
    });
    (void)ready_.get<pid_t>();
  }
  ~extender() {
    go_on_.put('e');
    process_->kill();
    if (witness_ > 0) ::waitpid(witness_, nullptr, 0);
  }
  void start() {
    go_.put('g');
    witness_ = ready_.get<pid_t>();
  }
  void kill() {
    ::syscall(SYS_kill, process_->pid(), SIGKILL);
    process_->wait_for_zombie();
  }
  pid_t pid() const { return process_->pid(); }

 private:
  channel go_, released_, ready_, go_on_;
  std::unique_ptr<child> process_;
  pid_t witness_ = -1;
};

/// A process joins, which looks for the dead and takes none of their chunks, and leaves.
void repair_only(const arena& a) {
  const locator where = a.where();
  CHECK(child([&] {
          (void)arena::attach(where);
          return 0;
        }).wait() == 0);
}

bool takes_part(arena& a, pid_t pid) {
  const auto all = a.participants();
  return std::any_of(all.begin(), all.end(),
                     [&](const participant_report& p) { return p.pid == static_cast<std::uint32_t>(pid); });
}

}  // namespace

TEST_CASE("a process adds a segment and is killed while another looks for the dead: nothing of it is left") {
  const auto a = arena::create(tiny);
  channel ready;
  auto idle = fork_from(*a, [&] {
    ready.put('r');
    sleep_for_ever();
    return 0;
  });
  (void)ready.get<char>();
  {
    extender dead(*a, false);
    when_looked_at = [&](pid_t pid) {
      CHECK(pid == idle->pid());
      dead.start();
      dead.kill();
    };
    (void)a->collect(false);
    CHECK_FALSE(when_looked_at);
    CHECK_FALSE(takes_part(*a, dead.pid()));
    CHECK(a->statistics().segments == 3);
    CHECK(a->statistics().shared_blocks == 0);
  }
  idle->kill();
  nothing_left(*a, 2);
}

TEST_CASE("a message in a segment that was not attached here is revoked: its memory comes back") {
  const auto a = arena::create(tiny);
  {
    extender sender(*a, true);
    sender.start();
    CHECK(a->revoke(0) == 1);
    CHECK(a->statistics().leases == 0);
    CHECK(a->statistics().shared_blocks == 0);
  }
  nothing_left(*a, 2);
}

TEST_CASE("a message of the dead in a segment that was not attached here expires: its memory comes back") {
  const auto a = arena::create(tiny);
  {
    extender sender(*a, true);
    sender.start();
    sender.kill();
    repair_only(*a);
    (void)a->collect(true);
    CHECK(a->statistics().leases == 0);
    CHECK(a->statistics().shared_blocks == 0);
  }
  nothing_left(*a, 2);
}

TEST_CASE("chunks of the dead in a segment that was not attached here are used again") {
  const auto a = arena::create(tiny);
  {
    extender dead(*a, false);
    dead.start();
    dead.kill();
    repair_only(*a);
    allocation large = a->allocate(tiny, 64, pages::lazy);  // the first segment has no room for it
    CHECK(a->statistics().segments == 3);
    a->release(large.ref);
  }
  nothing_left(*a, 2);
}

TEST_CASE("chunks of the dead are used again by a process that was not the one that found them dead") {
  const auto a = arena::create(tiny);
  for (int round = 0; round < 5; ++round) {
    channel made;
    auto owner = fork_from(*a, [&] {
      (void)make(*a, 16 * mib, 1);  // most of the arena
      made.put('m');
      sleep_for_ever();
      return 0;
    });
    (void)made.get<char>();
    (void)a->collect(false);
    owner->kill();
    repair_only(*a);
    allocation again = make(*a, 16 * mib, 2);
    CHECK(a->statistics().segments == 2);
    a->release(again.ref);
    (void)a->trim();
  }
  nothing_left(*a, 2);
}

namespace {

/// A process of the arena that takes `count` blocks of `bytes`, writes to them, and is killed.
void live_and_die(arena& a, std::uint64_t bytes, int count) {
  channel made;
  auto owner = fork_from(a, [&] {
    for (int i = 0; i < count; ++i) (void)make(a, bytes, 1);
    made.put('m');
    sleep_for_ever();
    return 0;
  });
  (void)made.get<char>();
  owner->kill();
}

}  // namespace

TEST_CASE("a process that was suspended during its search for the dead searches again soon") {
  const auto a = arena::create(tiny);
  live_and_die(*a, 4 * mib, 1);
  seconds_ahead = 1;
  when_looked_at = [](pid_t) { seconds_ahead = 20; };  // others ran on this processor
  allocation first = make(*a, 2 * mib, 0);
  CHECK(a->participants().size() == 1);
  REQUIRE(seconds_ahead == 20);
  live_and_die(*a, 4 * mib, 1);
  seconds_ahead = 21;
  allocation second = make(*a, 4 * mib, 0);
  CHECK(a->participants().size() == 1);
  seconds_ahead = 0;
  a->release(first.ref);
  a->release(second.ref);
  nothing_left(*a);
}

TEST_CASE("a forked child looks for the dead before it takes new memory, though its parent just did so") {
  const auto a = arena::create(2 * tiny);
  allocation ours = make(*a, 2 * mib, 0);
  clock_stands = true;
  (void)a->collect(false);
  live_and_die(*a, 4 * mib, 1);
  auto next = fork_from(*a, [&] {
    (void)make(*a, 4 * mib, 2);
    return a->participants().size() == 2 ? 0 : 1;
  });
  CHECK(next->wait() == 0);
  clock_stands = false;
  a->release(ours.ref);
  nothing_left(*a);
}

TEST_CASE("once deaths are noticed, what killed processes leave is no more than the cache may hold") {
  const auto a = arena::create(8 * tiny);
  a->set_cache_limit(6 * mib);
  std::vector<allocation> ours;
  for (std::uint64_t round = 1; round <= 3; ++round) {
    live_and_die(*a, 2 * mib, 8);
    (void)a->collect(false);
    ours.push_back(make(*a, 2 * mib, 0));
    CHECK(a->statistics().cached_bytes <= 6 * mib);
    CHECK(a->statistics().resident_bytes <= (round * 2 + 6 + 2) * mib);  // 2: tables
  }
  for (allocation& each : ours) a->release(each.ref);
  nothing_left(*a);
}

TEST_CASE("a message of the dead is kept while there is memory, and given up before memory is refused") {
  const auto memory = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) * 4096;
  std::uint64_t size = tiny;  // where the arena must grow
  SUBCASE("in an arena that grows") {}
  SUBCASE("in an arena that is larger than the memory, where addresses allow it") {
    if (sizeof(void*) == 8) size = 2 * memory;
  }
  const auto a = arena::create(size);
  channel sent;
  auto sender = fork_from(*a, [&] {
    for (std::uint64_t i = 1; i <= 2; ++i) sent.put(a->share(make(*a, 5000, i).ref, true));
    sleep_for_ever();
    return 0;
  });
  const auto first = sent.get<claim>(), second = sent.get<claim>();
  sender->kill();
  (void)a->collect(false);
  seconds_ahead = 100;  // their time is over
  std::vector<allocation> more;
  for (int i = 0; i < 20; ++i) more.push_back(a->allocate(5 * mib, 64, pages::lazy));
  (void)a->collect(false);
  CHECK(a->statistics().leases == 2);
  CHECK((size != tiny || a->statistics().segments > 2));
  allocation got = a->acquire(first);
  CHECK(filled(got.data, 5000, 1));
  if (size > memory) {
    CHECK_THROWS_AS((void)a->allocate(memory, 64, pages::lazy), no_memory);
    CHECK(a->statistics().leases == 0);
    CHECK_THROWS_AS((void)a->acquire(second), stale_handle);
  }
  seconds_ahead = 0;
  a->release(got.ref);
  for (allocation& each : more) a->release(each.ref);
  nothing_left(*a, 2);
}

TEST_CASE("revoking is for messages of the living: those of the dead wait until memory is wanted") {
  const auto a = arena::create(tiny);
  channel sent;
  auto sender = fork_from(*a, [&] {
    sent.put(a->share(make(*a, 5000, 1).ref, true));
    sleep_for_ever();
    return 0;
  });
  const claim message = sent.get<claim>();
  sender->kill();
  (void)a->collect(false);
  seconds_ahead = 100;  // their time is over
  CHECK(a->revoke(0) == 0);
  allocation got = a->acquire(message);
  CHECK(filled(got.data, 5000, 1));
  seconds_ahead = 0;
  a->release(got.ref);
  nothing_left(*a, 2);
}

TEST_CASE("free memory is not counted for a slot without a process") {
  const auto a = arena::create(tiny);
  (void)make(*a, 8 * mib, 0);  // no more is counted as free than is resident
  allocation x = make(*a, 3 * mib, 1);
  a->release(x.ref);
  const std::uint64_t cached = a->statistics().cached_bytes;
  const arena_words words(*a);
  words.head().slot_mark.store(10);
  words.slot(7).cached.store(2 * mib);  // as who freed a block of a process that was repaired meanwhile
  CHECK(a->statistics().cached_bytes == cached);
}

TEST_CASE("a fork that fails leaves no slot taken where there are very many processes") {
  cores = 80;  // 320 slots
  const auto a = arena::create(tiny);
  cores = 0;
  std::vector<std::unique_ptr<child>> all;
  while (all.size() < 260)
    all.push_back(fork_from(*a, [] {
      sleep_for_ever();
      return 0;
    }));
  const auto reserved = [&] {
    const auto slots = a->participants();
    return std::count_if(slots.begin(), slots.end(), [](const participant_report& p) {
      return p.what == participant_report::state::reserved;
    });
  };
  while (reserved() != 0) std::this_thread::yield();  // until each child has entered the slot kept for it
  arena_hooks::prepare_fork(*a);
  arena_hooks::after_fork_in_parent(*a);
  CHECK(reserved() == 1);
  (void)a->collect(false);
  CHECK(reserved() == 0);
  all.clear();
  nothing_left(*a, 2);
}
