#include <doctest.h>

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <thread>
#include <type_traits>
#include <vector>

#include <sharedmem/seqlock.hpp>

using namespace sharedmem;

namespace {

/// All numbers of a value that was written in one piece are the same.
struct numbers {
  std::array<std::uint32_t, 37> all;

  static numbers of(std::uint32_t n) {
    numbers made{};
    made.all.fill(n);
    return made;
  }
  bool whole() const {
    for (const std::uint32_t n : all) {
      if (n != all[0]) return false;
    }
    return true;
  }
};

// The number and one word, as both are aligned to 8 bytes.
static_assert(sizeof(seqlock<char>) == 16);
static_assert(std::is_standard_layout_v<seqlock<numbers>>);

numbers loaded(const seqlock<numbers>& from) {
  numbers found{};
  while (!from.try_load(found)) std::this_thread::yield();
  return found;
}

}  // namespace

TEST_CASE("zeros are a value of zeros") {
  alignas(8) std::array<std::byte, sizeof(seqlock<numbers>)> memory{};
  const auto* lock = reinterpret_cast<const seqlock<numbers>*>(memory.data());
  CHECK(loaded(*lock).all[36] == 0);
  CHECK(lock->sequence() == 0);
}

TEST_CASE("what was stored is loaded, and the sequence counts") {
  seqlock<numbers> lock;
  for (std::uint32_t n = 1; n < 4; ++n) {
    lock.store(numbers::of(n));
    CHECK(loaded(lock).whole());
    CHECK(loaded(lock).all[0] == n);
    CHECK(lock.sequence() == 2 * n);
  }
}

TEST_CASE("no reader sees a mixed value, and values never go back") {
  seqlock<numbers> lock;
  std::atomic<bool> done{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      std::uint32_t last = 0;
      while (!done.load()) {
        numbers found{};
        if (!lock.try_load(found)) continue;
        if (!found.whole() || found.all[0] < last) ++wrong;
        last = found.all[0];
      }
    });
  }
  for (std::uint32_t n = 1; n <= 200'000; ++n) lock.store(numbers::of(n));
  done.store(true);
  for (std::thread& one : readers) one.join();
  CHECK(wrong.load() == 0);
  CHECK(loaded(lock).all[0] == 200'000);
}

TEST_CASE("a value that a killed writer left half-written is refused until the next one") {
  constexpr std::size_t size = 4096;
  void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto* lock = new (at) seqlock<numbers>;
  int refused = 0;
  for (std::uint32_t round = 0; round < 100; ++round) {
    const std::uint64_t before = lock->sequence();
    const pid_t child = fork();
    if (child == 0) {
      for (std::uint32_t n = 0;; ++n) lock->store(numbers::of(n));
    }
    while (lock->sequence() == before) std::this_thread::yield();
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    numbers found{};
    const bool odd = lock->sequence() % 2 != 0;
    CHECK(lock->try_load(found) == !odd);
    if (!odd) CHECK(found.whole());
    refused += odd ? 1 : 0;
    lock->store(numbers::of(round));
    CHECK(lock->sequence() % 2 == 0);
    CHECK(loaded(*lock).all[0] == round);
    CHECK(loaded(*lock).whole());
  }
  CHECK(refused > 0);
  munmap(at, size);
}
