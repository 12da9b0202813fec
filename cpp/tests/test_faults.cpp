#include <doctest.h>

#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <sharedmem/arena.hpp>
#include <sharedmem/home.hpp>

#include "arena_tools.hpp"
#include "shared/fault.hpp"

using namespace sharedmem;

// A process kills itself at each step of everything that it can do with an arena; its parent continues.

namespace {

struct message {
  claim what;
  std::uint64_t bytes = 0;
  std::uint64_t seed = 0;
  bool may_be_lost = false;  // in an extension segment that no other process had attached
};

/// What the process that will die is given by the one that survives.
struct gifts {
  locator where;
  claim plain, leased, stale;
};

constexpr std::uint64_t given_bytes = 3 * kib;
constexpr int a_child_was_killed = 10;

void send(arena& a, channel& out, const allocation& block, std::uint64_t bytes, std::uint64_t seed,
          bool may_be_lost = false) {
  out.put(message{a.share(block.ref, true), bytes, seed, may_be_lost});
}

void send_and_drop(arena& a, channel& out, std::uint64_t bytes, std::uint64_t seed) {
  allocation block = make(a, bytes, seed);
  send(a, out, block, bytes, seed);
  a.release(block.ref);
}

/// Pages go back to the system while a block is being freed, and the arena runs out of its first segment.
void use_much(arena& a, channel& out) {
  const std::uint64_t limit = a.cache_limit();
  a.set_cache_limit(0);
  allocation emptied = make(a, 5 * mib, 30);
  (void)a.share(emptied.ref, false);
  a.release(emptied.ref);
  a.set_cache_limit(limit);

  allocation large = make(a, 8 * mib, 31);
  a.release(large.ref);
  allocation part = make(a, 3 * mib, 32);  // of the 8 MiB
  a.release(part.ref);                     // and back
  (void)a.trim();

  allocation beyond = a.allocate(tiny, 64, pages::lazy);
  fill(beyond.data, tiny, 33);
  send(a, out, beyond, tiny, 33, true);
  a.release(beyond.ref);
}

/// A child holds what its parent holds, sends something and is killed; its parent takes that back.
bool fork_one(arena& a, channel& out) {
  allocation kept = make(a, 200, 40);
  const pid_t parent = ::getpid();
  auto forked = fork_from(a, [&] {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // the parent may be the one who is killed
    if (::getppid() != parent) return 1;
    allocation own = make(a, 64 * kib, 41);
    send(a, out, own, 64 * kib, 41);
    a.release(kept.ref);
    ::kill(::getpid(), SIGSTOP);
    return 0;
  });
  siginfo_t info{};
  ::waitid(P_PID, static_cast<id_t>(forked->pid()), &info, WSTOPPED | WEXITED | WNOWAIT);
  const bool killed = info.si_code == CLD_KILLED;
  forked->kill();
  (void)a.collect(false);
  a.release(kept.ref);
  return killed;
}

/// The home arena keeps a message: what lingers for it ends soon.
void end_in_order() {
  ::unsetenv("SHAREDMEM_ARENA");
  ::setenv("SHAREDMEM_ARENA_SIZE", "32MiB", 1);
  ::setenv("SHAREDMEM_LINGER", "0.01", 1);
  (void)home().share(make(home(), 2 * kib, 51).ref, true);
  linger();
}

int use_everything(std::unique_ptr<arena> a, const gifts& given, channel& out) {
  allocation small = make(*a, 100, 20);
  allocation medium = make(*a, 40 * kib, 21);
  allocation large = make(*a, 5 * mib, 22);
  send(*a, out, small, 100, 20);
  send(*a, out, medium, 40 * kib, 21);
  send(*a, out, large, 5 * mib, 22);
  send_and_drop(*a, out, 1 * kib, 23);

  allocation plain = a->acquire(given.plain);
  (void)a->note_read(given.leased);
  allocation leased = a->acquire(given.leased);
  const bool intact = filled(plain.data, given_bytes, 1) && filled(leased.data, given_bytes, 2);
  try {
    (void)a->acquire(given.stale);
    return 1;
  } catch (const stale_handle&) {
  }
  const claim unsent = a->share(small.ref, true);
  a->give_back(unsent);
  const claim lost = a->share(small.ref, true);
  if (!a->note_written(lost, false) || !a->give_back_lost(lost)) return 3;

  bool killed = fork_one(*a, out);
  use_much(*a, out);
  killed = fork_one(*a, out) || killed;
  for (allocation* x : {&small, &medium, &large, &plain, &leased}) a->release(x->ref);
  arena_hooks::begin_to_end(*a);
  a.reset();

  for (int i = 0; i < 3; ++i) {
    const std::unique_ptr<arena> own = arena::create(tiny);
    allocation block = make(*own, 2 * mib, 50);
    own->release(block.ref);
  }
  end_in_order();
  return !intact ? 2 : killed ? a_child_was_killed : 0;
}

enum class way { fork, join };

struct survivor {
  explicit survivor(way how) : how_{how} {
    if (how == way::join) {
      one_that_joins_ = std::make_unique<child>([this] {
        const auto fault = faults_.get<std::array<char, 64>>();
        ::setenv("SHAREDMEM_FAULT", fault.data(), 1);
        const auto given = gifts_.get<gifts>();
        return use_everything(arena::attach(given.where), given, messages_);
      });
    }
    a_ = arena::create(tiny);
    a_->set_cache_limit(1024 * mib);
    unshared_ = make(*a_, 2 * kib, 0);
    plain_ = make(*a_, given_bytes, 1);
    leased_ = make(*a_, given_bytes, 2);
    allocation dropped = make(*a_, given_bytes, 3);
    given_ = {a_->where(), a_->share(plain_.ref, false), a_->share(leased_.ref, true),
              a_->share(dropped.ref, false)};
    a_->release(dropped.ref);
  }

  /// Whether the process, or one of its children, was killed.
  bool let_die(const std::string& fault) {
    std::unique_ptr<child> forked;
    if (how_ == way::join) {
      std::array<char, 64> text{};
      fault.copy(text.data(), text.size() - 1);
      faults_.put(text);
      gifts_.put(given_);
    } else {
      forked = fork_from(*a_, [&] {
        ::setenv("SHAREDMEM_FAULT", fault.c_str(), 1);
        return use_everything(std::move(a_), given_, messages_);
      });
    }
    child& one = how_ == way::join ? *one_that_joins_ : *forked;
    pid_ = one.pid();
    const int code = one.wait();
    CHECK((code == -SIGKILL || code == 0 || code == a_child_was_killed));
    bool killed = code == -SIGKILL || code == a_child_was_killed;
    int status = 0;
    while (::waitpid(-1, &status, 0) > 0)  // its children are ours now, and the process that lingers
      killed = killed || WIFSIGNALED(status);
    return killed;
  }

  /// Everything that the dead sent arrives, nothing else of theirs is left, and all memory can be used again.
  void go_on() {
    load_messages();
    (void)a_->collect(true);
    a_->check();
    CHECK(filled(unshared_.data, 2 * kib, 0));
    CHECK(filled(plain_.data, given_bytes, 1));
    CHECK(filled(leased_.data, given_bytes, 2));
    arena_statistics s = a_->statistics();
    CHECK(s.participants == 1);
    CHECK(a_->participants().size() == 1);
    CHECK(s.leases <= 1);  // ours to the process that died before it loaded it
    a_->give_back(given_.leased);
    CHECK(a_->statistics().leases == 0);
    CHECK(s.shared_blocks == (how_ == way::join ? 2 : 3));  // a fork shares what it inherits
    for (const std::uint64_t bytes : {100ULL, 40ULL * kib, 5ULL * mib}) {
      allocation again = make(*a_, bytes, bytes);
      CHECK(filled(again.data, bytes, bytes));
      a_->release(again.ref);
    }
    for (allocation* x : {&unshared_, &plain_, &leased_}) a_->release(x->ref);
    (void)a_->trim();
    s = a_->statistics();
    CHECK(s.shared_blocks == 0);
    CHECK(s.live_blocks == 0);
    CHECK(s.cached_bytes == 0);
    CHECK(a_->participants().at(0).chunks == 0);
    const std::uint32_t segments = s.segments;
    allocation most = a_->allocate(20 * mib, 64, pages::lazy);
    CHECK(a_->statistics().segments == segments);
    a_->release(most.ref);
    a_->check();
    a_.reset();
    (void)sweep_orphans();
    CHECK(segments_of(pid_) == 0);
    CHECK(segments_of(::getpid()) == 0);
  }

 private:
  void load_messages() {
    message m;
    messages_.close_sending();
    while (messages_.try_get(m)) {
      CAPTURE(m.seed);
      try {
        allocation got = a_->acquire(m.what);
        CHECK(filled(got.data, m.bytes, m.seed));
        a_->release(got.ref);
      } catch (const stale_handle& gone) {
        CAPTURE(gone.what());
        CHECK(m.may_be_lost);
      }
    }
  }

  way how_;
  channel faults_, gifts_, messages_;
  std::unique_ptr<child> one_that_joins_;
  std::unique_ptr<arena> a_;
  allocation unshared_, plain_, leased_;
  gifts given_;
  pid_t pid_ = 0;
};

/// Steps that only a race leads to: between two looks at a block's claims another process must set one.
/// The scheduler's tests of the protocol die there.
const std::set<std::string> needs_a_race = {"back_to_live"};

/// test_queue.cpp has those.
bool of_queues(const std::string& name) {
  return name.starts_with("queue_") || name == "lease_kept" || name == "lease_keeper_named";
}

#ifdef SHAREDMEM_FAULT_POINTS
constexpr bool built_to_die = true;
#else
constexpr bool built_to_die = false;
#endif

}  // namespace

TEST_CASE("a process killed at any step loses nothing of others" * doctest::skip(!built_to_die)) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  const char* only = std::getenv("SHAREDMEM_TEST_POINT");
  int points = 0, runs = 0, killed = 0;
  for (unsigned i = 0; const char* name = point_name(i); ++i) {
    if (only != nullptr && std::strcmp(only, name) != 0) continue;
    if (std::strncmp(name, "name_", 5) == 0 || std::strncmp(name, "host_", 5) == 0)
      continue;  // test_names.cpp and test_host.cpp die there
    if (of_queues(name)) continue;
    ++points;
    int reached = 0;
    for (int count = 1; count <= 3; ++count) {
      for (const way how : {way::fork, way::join}) {
        const std::string fault = std::string(name) + ":" + std::to_string(count);
        CAPTURE(fault);
        CAPTURE(static_cast<int>(how));
        survivor parent(how);
        const bool died = parent.let_die(fault);
        reached += died;
        parent.go_on();
        ++runs;
      }
    }
    killed += reached;
    CAPTURE(name);
    CHECK((reached > 0) == !needs_a_race.contains(name));
  }
  MESSAGE(points << " steps, " << runs << " runs, " << killed << " with a process killed");
}
