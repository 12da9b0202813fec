#include <doctest.h>

#include <dlfcn.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdarg>
#include <ctime>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "arena_tools.hpp"
#include "heap/heap.hpp"
#include "heap/thread_local_cache.hpp"

using namespace sharedmem;

namespace {

const heap* stopping = nullptr;  // the heap to check when the barrier is called
std::atomic<int> barriers{0};                           // calls of the barrier while it was set

}  // namespace

// The library's calls come here: symbols of the program are found first.
extern "C" long syscall(long number, ...) noexcept {
  using function = long (*)(long, ...);
  static const auto real = reinterpret_cast<function>(::dlsym(RTLD_NEXT, "syscall"));
  va_list list;
  va_start(list, number);
  long a[6];
  for (long& each : a) each = va_arg(list, long);
  va_end(list);
  if (number == SYS_membarrier && a[0] == MEMBARRIER_CMD_PRIVATE_EXPEDITED && stopping != nullptr &&
      stopping->threads_stopped())
    ++barriers;
  return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

// The caches of threads: who waits for whom, and what happens at a thread's end.

namespace {

/// This thread's cache; it serves `a` if this thread has not allocated from another arena before.
thread_cache& cache_of(arena& a) {
  allocation x = a.allocate(100);
  a.release(x.ref);
  return *current_cache;
}

heap& heap_of(const thread_cache& cache) { return *static_cast<heap*>(cache.home.load()); }

/// Bytes of addresses that this process uses.
std::uint64_t address_space() {
  std::uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

/// Has this thread run on the core of this number among those that it may use, if there are so many.
void run_on(int number) {
  cpu_set_t all, one;
  ::sched_getaffinity(0, sizeof all, &all);
  CPU_ZERO(&one);
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(core, &all) && number-- == 0) CPU_SET(core, &one);
  ::sched_setaffinity(0, sizeof one, &one);  // an empty set is refused
}

double now() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

/// How often a thread of this process has slept; giving way to others without sleeping does not count.
long sleeps(pid_t thread) {
  std::ifstream status("/proc/self/task/" + std::to_string(thread) + "/status");
  const std::string key = "voluntary_ctxt_switches:";
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(key)) return std::stol(line.substr(key.size()));
  return 0;
}

}  // namespace

TEST_CASE("a fork waits for a thread that is within its cache, and sleeps meanwhile") {
  const auto a = arena::create(tiny);
  const pid_t main = ::gettid();
  std::atomic<bool> is_within{false}, prepared{false}, too_early{false}, slept{false};
  std::thread other([&] {
    thread_cache& cache = cache_of(*a);
    const heap& h = heap_of(cache);
    {
      const within guard(cache);
      is_within = true;
      while (!h.threads_stopped() && !prepared) std::this_thread::yield();
      const long before = sleeps(main);
      const double start = now();
      // A minute: only a thread that never sleeps gets there.
      while (!prepared && now() < start + 60 && (now() < start + 0.2 || sleeps(main) < before + 3))
        std::this_thread::yield();
      too_early = prepared.load();
      slept = sleeps(main) >= before + 3;  // else no thread of lower priority would run
    }
  });
  while (!is_within) std::this_thread::yield();
  arena_hooks::prepare_fork(*a);
  prepared = true;
  arena_hooks::after_fork_in_parent(*a);
  other.join();
  CHECK(!too_early);
  CHECK(slept);
}

TEST_CASE("between asking threads to stop and reading their caches there is a barrier") {
  const auto a = arena::create(tiny);
  thread_cache& cache = cache_of(*a);
  stopping = &heap_of(cache);
  // Another thread is within its cache: the barrier must come before the wait for it has ended.
  std::atomic<int> before_the_end{0};
  std::atomic<bool> ready{false};
  std::thread other([&] {
    const within guard(cache_of(*a));
    ready = true;
    while (!stopping->threads_stopped()) std::this_thread::yield();
    for (const double start = now(); barriers == 0 && now() < start + 0.5;) std::this_thread::yield();
    before_the_end = barriers.load();
  });
  while (!ready) std::this_thread::yield();
  arena_hooks::prepare_fork(*a);
  arena_hooks::after_fork_in_parent(*a);
  other.join();
  stopping = nullptr;
  CHECK(before_the_end >= 1);  // the first one of a process may be refused: it has to register
}

TEST_CASE("after stopping the threads none of them is inside its cache") {
  const auto a = arena::create(tiny);
  std::atomic<bool> end{false}, ready{false}, stopped{false};
  std::atomic<int> seen{0};
  std::thread other([&] {
    thread_cache& cache = cache_of(*a);
    const heap& h = heap_of(cache);
    run_on(1);
    ready = true;
    while (!end.load(std::memory_order_relaxed)) {
      for (int i = 0; i < 50; ++i) (void)seen.load(std::memory_order_relaxed);
      const within guard(cache);  // as arena::allocate does
      if (h.threads_stopped()) continue;
      for (int i = 0; i < 50; ++i)
        if (stopped.load(std::memory_order_relaxed)) seen.store(1, std::memory_order_relaxed);
    }
  });
  while (!ready) std::this_thread::yield();
  heap& h = heap_of(cache_of(*a));
  cpu_set_t all;
  ::sched_getaffinity(0, sizeof all, &all);
  run_on(0);
  for (const double start = now(); now() < start + 3;) {  // so long that both threads run at once for a while
    for (int round = 0; round < 100; ++round) {
      const std::lock_guard lock(h);
      h.stop_threads();
      stopped.store(true, std::memory_order_relaxed);
      for (int i = 0; i < 50; ++i) (void)seen.load(std::memory_order_relaxed);
      stopped.store(false, std::memory_order_relaxed);
      h.resume_threads();
    }
  }
  end = true;
  other.join();
  ::sched_setaffinity(0, sizeof all, &all);
  CHECK(seen == 0);
}

TEST_CASE("an arena goes while threads end that are done with it") {
  for (int round = 0; round < 200; ++round) {
    auto a = arena::create(tiny);
    std::atomic<int> done{0};
    std::atomic<bool> go{false};
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i)
      threads.emplace_back([&] {
        (void)cache_of(*a);
        ++done;
        go.wait(false);
      });
    while (done != 8) std::this_thread::yield();
    go = true;
    go.notify_all();
    a.reset();
    for (std::thread& t : threads) t.join();
  }
}

TEST_CASE("an arena that goes does not touch the cache of a thread that is ending") {
  auto a = arena::create(tiny);
  thread_cache& cache = cache_of(*a);
  std::atomic<bool> gone{false};
  hold_caches();  // as a thread does while it gives its cache back
  std::thread other([&] {
    a.reset();
    gone = true;
  });
  for (const double end = now() + 0.2; now() < end && !gone;) std::this_thread::yield();
  CHECK(cache.home.load() != nullptr);
  let_caches_go();
  other.join();
  CHECK(cache.home.load() == nullptr);
}

TEST_CASE("a thread continues with another arena after its first one was left") {
  auto a = arena::create(tiny);
  const auto b = arena::create(tiny);
  std::atomic<int> step{0};
  std::thread other([&] {
    thread_cache& cache = cache_of(*a);
    step = 1;
    while (step != 2) std::this_thread::yield();
    CHECK(cache.home.load() == nullptr);
    CHECK(&cache_of(*b) == &cache);
    allocation x = b->allocate(100);
    CHECK(cache.home.load() != nullptr);
    b->release(x.ref);
  });
  while (step != 1) std::this_thread::yield();
  a.reset();
  step = 2;
  other.join();
  nothing_left(*b);
}

namespace {

arena* used_late = nullptr;

/// Made before the thread's cache, and therefore destroyed after it.
struct keeper {
  block_ref ref;
  ~keeper() {
    if (ref.home != nullptr) used_late->release(ref);
    if (used_late != nullptr) {
      allocation x = used_late->allocate(100);
      used_late->release(x.ref);
    }
  }
};

thread_local keeper kept_to_the_end;

}  // namespace

TEST_CASE("a thread's other destructors may use arrays after its cache was destroyed") {
  const auto a = arena::create(tiny);
  used_late = a.get();
  const auto threads = [&a](int number) {
    for (int i = 0; i < number; ++i)
      std::thread([&a] {
        kept_to_the_end.ref = {};
        kept_to_the_end.ref = a->allocate(100).ref;
        CHECK(current_cache != nullptr);
      }).join();
  };
  threads(20);
  const std::uint64_t before = address_space();
  threads(100);
  used_late = nullptr;
  CHECK(address_space() < before + mib);
  nothing_left(*a);
}

TEST_CASE("in a child without fork handlers another thread than the one that forked may come first") {
  const auto a = arena::create(tiny);
  (void)cache_of(*a);
  child forked([&a] {  // this test's arena has no fork handlers
    std::thread([&a] { (void)cache_of(*a); }).join();
    allocation x = make(*a, 100, 5);
    const bool right = filled(x.data, 100, 5);
    a->release(x.ref);
    return right ? 0 : 1;
  });
  CHECK(forked.wait() == 0);
  nothing_left(*a);
}
