/// A forked child holds what its parent held, whatever other processes and threads do at that moment.
#include <doctest.h>

#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include <sharedmem/arena.hpp>

#include "arena_tools.hpp"
#include "arena_words.hpp"
#include "crowd.hpp"

using namespace sharedmem;

namespace {

// Called once by this thread, from within the system call.
thread_local std::function<void()> when_pages_go, when_the_clock_is_read, when_a_segment_is_attached;

[[maybe_unused]] void call(std::function<void()>& once) {
  if (once) std::exchange(once, nullptr)();
}

}  // namespace

// The library's calls end here as well: symbols of the program come first.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
constexpr bool calls_are_seen = true;
extern "C" int madvise(void* base, std::size_t bytes, int advice) noexcept {
  if (advice == MADV_REMOVE) call(when_pages_go);
  return static_cast<int>(::syscall(SYS_madvise, base, bytes, advice));
}
extern "C" int clock_gettime(clockid_t clock, timespec* now) noexcept {
  call(when_the_clock_is_read);
  return static_cast<int>(::syscall(SYS_clock_gettime, clock, now));
}
extern "C" void* shmat(int id, const void* place, int flags) noexcept {
  static const auto system = reinterpret_cast<void* (*)(int, const void*, int)>(::dlsym(RTLD_NEXT, "shmat"));
  call(when_a_segment_is_attached);
  return system(id, place, flags);
}
#else
constexpr bool calls_are_seen = false;
#endif

namespace {

constexpr std::uint64_t bytes = 100'000;  // kept by no thread: the next block takes the place of the last

/// A process that stops while it clears the overflow slot: it frees a block that only a child without a slot
/// held, and that child is dead.
class clearer {
 public:
  explicit clearer(arena& a) : a_(a) {
    process_ = fork_from(a, [&] {
      (void)go_.get<char>();
      when_pages_go = [&] {
        reached_.put('r');
        (void)go_.get<char>();
      };
      (void)a.collect(false);
      reached_.put('d');
      sleep_for_ever();
      return 0;
    });
  }
  /// \pre  all slots are taken.
  void start() {
    a_.set_cache_limit(0);
    allocation z = make(a_, 3 * mib, 1);
    auto holder = fork_from(a_, [] {
      sleep_for_ever();
      return 0;
    });
    a_.release(z.ref);
    holder->kill();
    go_.put('g');
    REQUIRE(reached_.get<char>() == 'r');
  }
  void go_on() {
    go_.put('g');
    CHECK(reached_.get<char>() == 'd');
  }
  void kill() { process_->kill(); }

 private:
  arena& a_;
  channel go_, reached_;
  std::unique_ptr<child> process_;
};

/// Whether a child without a slot still has an array after its parent dropped it and made others.
bool child_keeps_its_array(arena& a) {
  allocation x = make(a, bytes, 1);
  channel go;
  auto late = fork_from(a, [&] {
    (void)go.get<char>();
    return filled(x.data, bytes, 1) ? 0 : 1;
  });
  a.release(x.ref);
  allocation y = make(a, bytes, 2), z = make(a, bytes, 3);
  go.put('g');
  const bool kept = late->wait() == 0;
  a.release(y.ref);
  a.release(z.ref);
  return kept;
}

}  // namespace

TEST_CASE("a fork while a stopped process clears the overflow slot" * doctest::skip(!calls_are_seen)) {
  const auto a = arena::create(tiny);
  allocation first = make(*a, bytes, 0);  // so that no memory has to be found later
  clearer other(*a);
  auto others = std::make_unique<crowd>(*a);
  other.start();
  for (int i = 0; i < 5; ++i) CHECK(child_keeps_its_array(*a));
  other.go_on();
  other.kill();
  others.reset();
  a->release(first.ref);
  nothing_left(*a, 3);
  CHECK(arena_words(*a).head().overflow.load() == 0);
}

TEST_CASE("a fork after a process was killed that cleared the overflow slot" *
          doctest::skip(!calls_are_seen)) {
  const auto a = arena::create(tiny);
  allocation first = make(*a, bytes, 0);
  clearer other(*a);
  auto others = std::make_unique<crowd>(*a);
  other.start();
  other.kill();
  for (int i = 0; i < 5; ++i) CHECK(child_keeps_its_array(*a));
  others.reset();
  a->release(first.ref);
  nothing_left(*a, 3);
  CHECK(arena_words(*a).head().overflow.load() == 0);
}

TEST_CASE("another process looks for the dead between a fork's first and last step") {
  const auto a = arena::create(tiny);
  allocation first = make(*a, bytes, 0);
  channel go, done;
  auto collector = fork_from(*a, [&] {
    for (;;) {
      (void)go.get<char>();
      (void)a->collect(false);
      done.put('d');
    }
    return 0;
  });
  auto others = std::make_unique<crowd>(*a);
  allocation x = make(*a, bytes, 1);
  channel dropped;
  const auto collect = [&] {
    go.put('g');
    (void)done.get<char>();
  };
  const auto late = fork_when_ready(*a, collect, [&] {
    (void)dropped.get<char>();
    return filled(x.data, bytes, 1) ? 0 : 1;
  });
  a->release(x.ref);
  allocation y = make(*a, bytes, 2);
  dropped.put('d');
  CHECK(late->wait() == 0);
  a->release(y.ref);
  a->release(first.ref);
  collector->kill();
  others.reset();
  nothing_left(*a, 2);
}

TEST_CASE("a child that gets a slot at last keeps what it held without one" *
          doctest::skip(!calls_are_seen)) {
  const auto a = arena::create(tiny);
  allocation first = make(*a, bytes, 0);
  auto others = std::make_unique<crowd>(*a);
  allocation x = make(*a, bytes, 1), sent = make(*a, bytes, 3);
  channel slot_is_free, go;
  auto late = fork_from(*a, [&] {
    (void)slot_is_free.get<char>();
    std::atomic<bool> in_the_way{false};
    std::thread other([&] {
      when_the_clock_is_read = [&] {  // a lock is held that the move to the slot needs
        in_the_way = true;
        (void)go.get<char>();
      };
      (void)a->share(sent.ref, true);
    });
    while (!in_the_way) std::this_thread::yield();
    (void)a->allocate(bytes);
    other.join();
    return filled(x.data, bytes, 1) ? 0 : 1;
  });
  a->release(x.ref);
  others->kill(1);
  (void)a->collect(false);
  const std::size_t before = a->participants().size();
  slot_is_free.put('s');
  while (a->participants().size() == before) std::this_thread::yield();
  (void)a->collect(false);
  allocation y = make(*a, bytes, 2);
  go.put('g');
  CHECK(late->wait() == 0);
  a->release(y.ref);
  a->release(sent.ref);
  a->release(first.ref);
  others.reset();
  nothing_left(*a, 2);
}

TEST_CASE("a fork waits for a thread that attaches a segment" * doctest::skip(!calls_are_seen)) {
  const auto a = arena::create(tiny);
  channel made;
  auto extender = fork_from(*a, [&] {
    (void)a->share(make(*a, tiny, 1).ref, false);
    made.put('m');
    sleep_for_ever();
    return 0;
  });
  (void)made.get<char>();
  std::atomic<bool> attaching{false}, forked{false};
  std::thread other([&] {
    when_a_segment_is_attached = [&] {
      attaching = true;
      for (int i = 0; i < 300 && !forked; ++i) ::usleep(1000);
    };
    (void)a->statistics();
  });
  while (!attaching) std::this_thread::yield();
  auto forked_one = fork_from(*a, [&] {
    ::alarm(60);
    return a->statistics().segments == 3 ? 0 : 1;
  });
  CHECK(a->statistics().segments == 3);
  forked = true;
  other.join();
  CHECK(a->statistics().segments == 3);
  CHECK(forked_one->wait() == 0);
  extender->kill();
  nothing_left(*a, 2);
}

TEST_CASE("of two overflow slots one is cleared at a time, whichever process is stopped while it does so") {
  const auto a = arena::create(tiny);
  const arena_words words(*a);
  const std::uint32_t first = words.head().slots - overflow_slots;
  auto stopped = fork_from(*a, [] {
    sleep_for_ever();
    return 0;
  });
  while (a->participants().size() != 2 ||
         slot_word::from(words.slot(1).ctl.load()).state != slot_state::active)
    std::this_thread::yield();
  words.slot(first).ctl.store(
      slot_word{slot_state::repair, slot_word::from(words.slot(1).ctl.load()).who}.bits());
  const std::uint64_t before = overflow_used(0) | overflow_used(1) | overflow_clearing(0);
  words.head().overflow.store(before);
  (void)a->collect(false);
  CHECK(words.head().overflow.load() == before);  // else forks would find no overflow slot
  stopped->kill();
  (void)a->collect(false);
  (void)a->collect(false);
  CHECK(words.head().overflow.load() == 0);
}
