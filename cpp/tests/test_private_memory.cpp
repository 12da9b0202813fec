/// Want of private memory: `calloc`, `operator new` and giving pages back fail at any moment, and the arena
/// stays whole.
#include <doctest.h>

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <random>
#include <vector>

#include <sharedmem/arena.hpp>

#include "arena_tools.hpp"

using namespace sharedmem;

namespace {

thread_local int until_refusal = -1;  // allocations; negative: none is refused
thread_local bool refused = false;
thread_local bool pages_stay = false;  // the kernel takes none back

bool refuse() noexcept {
  if (until_refusal < 0 || until_refusal-- > 0) return false;
  until_refusal = 0;  // and all that follow, until the caller is through
  refused = true;
  return true;
}

}  // namespace

// The library's own are found here as well: symbols of the program come first.
void* operator new(std::size_t bytes) {
  if (!refuse())
    if (void* p = std::malloc(bytes)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
extern "C" void* __libc_calloc(std::size_t, std::size_t);
extern "C" void* calloc(std::size_t count, std::size_t bytes) noexcept {
  return refuse() ? nullptr : __libc_calloc(count, bytes);
}
extern "C" void* mmap(void* base, std::size_t bytes, int rights, int flags, int fd, off_t offset) noexcept {
  if ((flags & MAP_ANONYMOUS) != 0 && (rights & PROT_WRITE) != 0 && refuse()) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
#ifdef SYS_mmap2  // 32 bit: the offset is a number of pages of 4 KiB (mmap2(2))
  return reinterpret_cast<void*>(::syscall(SYS_mmap2, base, bytes, rights, flags, fd, offset / 4096));
#else
  return reinterpret_cast<void*>(::syscall(SYS_mmap, base, bytes, rights, flags, fd, offset));
#endif
}
extern "C" int madvise(void* base, std::size_t bytes, int advice) noexcept {
  if (advice == MADV_REMOVE && pages_stay) {
    errno = ENOMEM;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_madvise, base, bytes, advice));
}
#endif

namespace {

/// Runs `work` while every private allocation after the first `allowed` is refused.
template <class F>
void in_want(int allowed, F&& work) {
  until_refusal = allowed;
  try {
    work();
  } catch (const std::bad_alloc&) {  // no_memory, too
  }
  until_refusal = -1;
}

struct array {
  allocation memory;
  std::uint64_t seed;
};

struct message {
  claim names;
  std::uint64_t seed;
};

/// What processes do to an arena, in an order that `seed` gives.
struct life {
  std::mt19937 dice;
  std::unique_ptr<arena> a = arena::create(64 * mib);
  std::vector<array> arrays;
  std::vector<message> messages;

  explicit life(unsigned seed) : dice(seed) {}

  std::uint32_t roll(std::uint32_t sides) { return static_cast<std::uint32_t>(dice() % sides); }

  std::uint64_t any_size() {
    constexpr std::uint64_t sizes[] = {100,     5000,    30000,   100 * kib, 500 * kib,
                                       2 * mib, 3 * mib, 7 * mib, 12 * mib};
    return sizes[roll(std::size(sizes))];
  }

  void keep(const allocation& made) {
    const std::uint64_t seed = dice();
    fill(made.data, made.bytes, seed);
    arrays.push_back({made, seed});
  }

  void drop(std::size_t i) {
    const int paused = std::exchange(until_refusal, -1);
    REQUIRE(filled(arrays[i].memory.data, arrays[i].memory.bytes, arrays[i].seed));
    until_refusal = paused;
    std::swap(arrays[i], arrays.back());
    a->release(arrays.back().memory.ref);
    arrays.pop_back();
  }

  void act() {
    const std::uint32_t what = roll(100);
    if (what < 45) {
      keep(a->allocate(any_size(), 64, pages::lazy));
    } else if (what < 75) {
      if (!arrays.empty()) drop(roll(static_cast<std::uint32_t>(arrays.size())));
    } else if (what < 80) {
      if (arrays.empty()) return;
      const array& sent = arrays[roll(static_cast<std::uint32_t>(arrays.size()))];
      messages.push_back({a->share(sent.memory.ref, true), sent.seed});
    } else if (what < 83) {
      if (messages.empty()) return;
      arrays.push_back({a->acquire(messages.back().names), messages.back().seed});
      messages.pop_back();
    } else if (what < 85) {
      if (messages.empty()) return;
      a->give_back(messages.back().names);
      messages.pop_back();
    } else if (what < 90) {
      a->trim();
    } else if (what < 92) {
      a->set_cache_limit(std::uint64_t{roll(4)} * 8 * mib);
    } else if (what < 94) {
      while (arrays.size() > 3) drop(arrays.size() - 1);
    } else if (what < 95) {
      arena_hooks::prepare_fork(*a);  // and the system call fails
      arena_hooks::after_fork_in_parent(*a);
    } else {
      (void)a->collect(false);
    }
  }
};

}  // namespace

TEST_CASE("private memory that is refused leaves the arena as it was") {
  {  // the C library ends the process if it has no memory to note a thread's destructors
    const auto a = arena::create(tiny);
    allocation first = a->allocate(100);
    a->release(first.ref);
  }
  int refusals = 0;
  for (unsigned seed = 0; seed < 20; ++seed) {
    CAPTURE(seed);
    life one(seed);
    one.arrays.reserve(10000);
    one.messages.reserve(10000);
    for (int round = 0; round < 400; ++round) {
      CAPTURE(round);
      refused = false;
      const std::uint32_t fate = one.roll(8);
      pages_stay = one.roll(4) == 0;
      if (fate < 4)
        in_want(static_cast<int>(fate), [&] { one.act(); });
      else
        in_want(-1, [&] { one.act(); });
      refusals += refused;
    }
    pages_stay = false;
    while (!one.arrays.empty()) one.drop(one.arrays.size() - 1);
    for (const message& m : one.messages) one.a->give_back(m.names);
    nothing_left(*one.a);
  }
  CHECK(refusals > 100);
}

TEST_CASE("a fork needs no private memory: the child holds what its parent holds") {
  const auto a = arena::create(64 * mib);
  std::vector<allocation> arrays;
  for (const std::uint64_t bytes : {std::uint64_t{100}, 100 * kib, 3 * mib})
    for (std::uint64_t i = 0; i < 50'000; i += bytes == 100 ? 1 : 5'000) arrays.push_back(make(*a, bytes, i));
  const auto seed_of = [&](std::size_t i) { return i < 50'000 ? i : (i - 50'000) % 10 * 5'000; };
  channel go;
  until_refusal = 0;
  arena_hooks::prepare_fork(*a);
  until_refusal = -1;
  child forked([&] {
    arena_hooks::after_fork_in_child(*a);
    (void)go.get<char>();
    for (std::size_t i = 0; i < arrays.size(); ++i)
      if (!filled(arrays[i].data, i < 50'000 ? 100 : i < 50'010 ? 100 * kib : 3 * mib, seed_of(i))) return 1;
    return 0;
  });
  arena_hooks::after_fork_in_parent(*a);
  for (allocation& x : arrays) a->release(x.ref);
  std::vector<allocation> others;
  for (std::uint64_t i = 0; i < 50'000; ++i) others.push_back(make(*a, 100, i + 1'000'000));
  go.put('g');
  CHECK(forked.wait() == 0);
  for (allocation& x : others) a->release(x.ref);
  nothing_left(*a, 2);
}
