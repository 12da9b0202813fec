/// The second mapping of an arena's data, which cannot write.
#include <doctest.h>

#include <sys/mman.h>
#include <sys/resource.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <thread>
#include <vector>

#include <sharedmem/arena.hpp>
#include <sharedmem/error.hpp>
#include <sharedmem/home.hpp>

#include "arena_tools.hpp"

using namespace sharedmem;

namespace {

/// Lines of maps that are of System V segments: threads and sanitizers have mappings of their own.
int maps() {
  std::ifstream file("/proc/self/maps");
  int lines = 0;
  for (std::string line; std::getline(file, line);) lines += line.find("/SYSV") != std::string::npos;
  return lines;
}

/// The signal that ends a child which stores a byte at `p`; 0: it may.
int store(const std::byte* p) {
  child doomed([p] {
    ::signal(SIGSEGV, SIG_DFL);  // that of the test framework would report it
    const rlimit none{0, 0};
    ::setrlimit(RLIMIT_CORE, &none);
    *const_cast<volatile std::byte*>(p) = std::byte{1};
    return 0;
  });
  return -doomed.wait();
}

int make_writable(const std::byte* p) {
  auto* page = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(p) / 4096 * 4096);
  return ::mprotect(page, 4096, PROT_READ | PROT_WRITE) == 0 ? 0 : errno;
}

}  // namespace

TEST_CASE("it shows the same bytes, cannot be written to, and is found as its block") {
  const auto a = arena::create(tiny);
  for (const std::uint64_t bytes : {std::uint64_t{100}, 100 * kib, 5 * mib}) {
    CAPTURE(bytes);
    allocation x = make(*a, bytes, 1);
    CHECK_FALSE(a->find(x.data).read_only);
    const std::byte* seen = a->read_only(x.data + 50);
    REQUIRE(seen != nullptr);
    CHECK(filled(seen - 50, bytes, 1));
    CHECK(store(seen) == SIGSEGV);
    CHECK(make_writable(seen) == EACCES);
    CHECK(store(x.data) == 0);

    CHECK(a->contains(seen));
    CHECK(a->writable(seen) == x.data + 50);
    CHECK(a->writable(x.data) == x.data);
    CHECK(a->read_only(seen) == seen);
    const allocation found = a->find(seen + bytes / 2);
    CHECK(found.read_only);
    CHECK(found.data == x.data);
    CHECK(found.bytes == x.bytes);
    CHECK(found.ref.block == x.ref.block);
    a->release(x.ref);
    CHECK(a->find(seen).ref.home == nullptr);
  }
  nothing_left(*a);
}

TEST_CASE("an address elsewhere has no counterpart") {
  const auto a = arena::create(tiny);
  const auto b = arena::create(tiny);
  allocation x = make(*a, 100, 1);
  int here = 0;
  CHECK(a->read_only(&here) == nullptr);
  CHECK(a->writable(&here) == nullptr);
  const std::byte* seen = a->read_only(x.data);
  CHECK(a->read_only(&here) == nullptr);
  CHECK(a->writable(&here) == nullptr);
  CHECK(b->read_only(x.data) == nullptr);
  CHECK(b->writable(seen) == nullptr);
  CHECK_FALSE(b->contains(seen));
  CHECK_FALSE(a->contains(nullptr));
  // The tables lie in front of the data in the mapping, and are not part of it.
  const std::byte* in_front = seen;
  while (a->contains(in_front)) in_front -= 4096;
  CHECK(a->writable(in_front) == nullptr);
  a->release(x.ref);
}

TEST_CASE("each segment has one such mapping, of one line of maps, whichever caller comes first") {
  const auto a = arena::create(tiny);
  std::vector<allocation> made;
  for (std::uint64_t i = 0; i < 40; ++i) made.push_back(make(*a, 2 * mib, i));
  const std::uint32_t segments = a->statistics().segments - 1;  // without the census
  REQUIRE(segments > 1);
  const int before = maps();
  std::vector<const std::byte*> seen(made.size());
  std::atomic<int> waiting{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      ++waiting;
      while (waiting < 4) std::this_thread::yield();
      for (std::size_t i = 0; i < made.size(); ++i) {
        const std::byte* p = a->read_only(made[i].data);
        if (t == 0) seen[i] = p;
        if (a->writable(p) != made[i].data) std::terminate();
      }
    });
  for (std::thread& each : threads) each.join();
  const int grown = maps();
  for (const allocation& each : made) (void)a->read_only(each.data);
  CHECK(maps() == grown);
  CHECK(grown - before <= static_cast<int>(segments));
  for (std::size_t i = 0; i < made.size(); ++i) CHECK(filled(seen[i], 2 * mib, i));
  for (allocation& each : made) a->release(each.ref);
}

TEST_CASE("threads that need it at the same moment get one mapping") {
  for (int round = 0; round < 50; ++round) {
    const auto a = arena::create(tiny);
    allocation x = make(*a, 1000, 1);
    std::atomic<int> ready{0};
    std::array<const std::byte*, 3> seen{};
    std::vector<std::thread> threads;
    for (const std::byte*& mine : seen)
      threads.emplace_back([&] {
        ++ready;
        while (ready < 3) std::this_thread::yield();
        mine = a->read_only(x.data);
      });
    for (std::thread& each : threads) each.join();
    for (const std::byte* p : seen) {
      REQUIRE(p == seen[0]);
      REQUIRE(filled(p, 1000, 1));
    }
    a->release(x.ref);
  }
}

TEST_CASE("a forked child has it, and its own stores are seen through it") {
  const auto a = arena::create(tiny);
  allocation x = make(*a, 1000, 1);
  const std::byte* seen = a->read_only(x.data);
  const auto other = fork_from(*a, [&] {
    x.data[7] = std::byte{42};
    return a->read_only(x.data) == seen && store(seen) == SIGSEGV ? 0 : 1;
  });
  CHECK(other->wait() == 0);
  CHECK(seen[7] == std::byte{42});
  a->release(x.ref);
}

TEST_CASE("it goes with the arena") {
  allocate(100);  // a home, which stays
  const int before = maps();
  for (int i = 0; i < 3; ++i) {
    const auto a = arena::create(tiny);
    allocation x = make(*a, 1000, 1);
    (void)a->read_only(x.data);
    a->release(x.ref);
  }
  CHECK(maps() == before);
}

TEST_CASE("without address space it is an error, and a later call succeeds") {
  const auto a = arena::create(256 * mib);
  allocation x = make(*a, 1000, 1);
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_AS, &before) == 0);
  const rlimit little{1, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_AS, &little) == 0);
  int code = 0;
  try {
    (void)a->read_only(x.data);
  } catch (const error& refused) {
    code = refused.code().value();
  }
  ::setrlimit(RLIMIT_AS, &before);
  CHECK(code == ENOMEM);
  CHECK(filled(a->read_only(x.data), 1000, 1));
  a->release(x.ref);
}
