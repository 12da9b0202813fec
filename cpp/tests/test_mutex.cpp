#include <doctest.h>

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include <sharedmem/error.hpp>
#include <sharedmem/robust_mutex.hpp>

#include "needs.hpp"

using namespace sharedmem;
using namespace std::chrono_literals;
using outcome = robust_mutex::outcome;

namespace {

/// Memory that forked children share.
struct shared_page {
  static constexpr std::size_t size = 4096;
  void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

  shared_page() = default;
  shared_page(const shared_page&) = delete;
  shared_page& operator=(const shared_page&) = delete;
  ~shared_page() { munmap(at, size); }

  template <class T>
  T* extra() const {
    return reinterpret_cast<T*>(static_cast<std::byte*>(at) + robust_mutex::bytes);
  }
};

template <class F>
pid_t in_child(F body) {
  const pid_t child = fork();
  if (child == 0) {
    body();
    _exit(0);
  }
  return child;
}

int end_of(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

}  // namespace

TEST_CASE("a lock that is taken is busy for others until it is given back") {
  shared_page page;
  robust_mutex lock = robust_mutex::create(page.at);
  robust_mutex same = robust_mutex::open(page.at);
  CHECK(lock.try_lock() == outcome::taken);
  std::thread([&] {
    CHECK(same.try_lock() == outcome::busy);
    CHECK(same.try_lock_for(1ms) == outcome::busy);
    CHECK(same.try_lock_for(-999'999'999ns) == outcome::busy);
  }).join();
  same.unlock();
  CHECK(same.try_lock_for(1s) == outcome::taken);
  std::thread waiting([&] {
    CHECK(lock.try_lock_for(std::chrono::nanoseconds::max()) == outcome::taken);
    lock.unlock();
  });
  same.unlock();
  waiting.join();
}

TEST_CASE("taking it twice is an error, not a hang") {
  shared_page page;
  robust_mutex lock = robust_mutex::create(page.at);
  REQUIRE(lock.try_lock() == outcome::taken);
  try {
    (void)lock.try_lock_for(1h);
    FAIL("no error");
  } catch (const error& e) {
    CHECK(e.code().value() == EDEADLK);
  }
  lock.unlock();
}

TEST_CASE("memory that holds no lock is refused") {
  shared_page page;
  CHECK_THROWS_AS((void)robust_mutex::open(page.at), std::invalid_argument);
  std::memset(page.at, 0xff, robust_mutex::bytes);
  CHECK_THROWS_AS((void)robust_mutex::open(page.at), std::invalid_argument);
  auto* askew = static_cast<std::byte*>(page.at) + 8;
  CHECK_THROWS_AS((void)robust_mutex::create(askew), std::invalid_argument);
  CHECK_THROWS_AS((void)robust_mutex::open(askew), std::invalid_argument);
}

TEST_CASE("a lock of another pid namespace is refused") {
  shared_page page;
  (void)robust_mutex::create(page.at);
  constexpr std::size_t namespace_at = 8;
  std::uint32_t inode = 0;
  std::memcpy(&inode, static_cast<std::byte*>(page.at) + namespace_at, sizeof inode);
  if (!needs(inode != 0, "/proc")) return;
  inode ^= 1;
  std::memcpy(static_cast<std::byte*>(page.at) + namespace_at, &inode, sizeof inode);
  CHECK_THROWS_AS((void)robust_mutex::open(page.at), std::invalid_argument);
}

TEST_CASE("a thread that ends leaves the lock to the next") {
  shared_page page;
  robust_mutex lock = robust_mutex::create(page.at);
  std::thread([&] { CHECK(lock.try_lock() == outcome::taken); }).join();
  CHECK(lock.try_lock() == outcome::inherited);
  lock.unlock();
  CHECK(lock.try_lock() == outcome::taken);
  lock.unlock();
}

#if !defined(__SANITIZE_THREAD__)  // it takes a lock that `timedlock` inherits for one not held
TEST_CASE("a process that dies in any way leaves the lock to one that waits") {
  for (const int way : {0, SIGKILL}) {
    shared_page page;
    robust_mutex lock = robust_mutex::create(page.at);
    auto* held = new (page.extra<void>()) std::atomic<int>{0};
    const pid_t child = in_child([&] {
      if (robust_mutex::open(page.at).try_lock() != outcome::taken) _exit(1);
      held->store(1);
      while (held->load() != 2) std::this_thread::yield();
    });
    while (held->load() != 1) std::this_thread::yield();
    CHECK(lock.try_lock() == outcome::busy);
    if (way == 0) held->store(2);
    if (way == SIGKILL) kill(child, SIGKILL);
    CHECK(lock.try_lock_for(60s) == outcome::inherited);
    lock.unlock();
    end_of(child);
  }
}
#endif

TEST_CASE("a forked child does not hold its parent's lock") {
  shared_page page;
  robust_mutex lock = robust_mutex::create(page.at);
  REQUIRE(lock.try_lock() == outcome::taken);
  const int status = end_of(in_child([&] {
    if (lock.try_lock() != outcome::busy) _exit(1);
  }));
  CHECK(status == 0);
  lock.unlock();
}

TEST_CASE("one at a time, in several processes of several threads") {
  constexpr int processes = 3;
  constexpr int threads = 2;
  constexpr int rounds = 5'000;
  shared_page page;
  (void)robust_mutex::create(page.at);
  auto* count = page.extra<long>();
  std::array<pid_t, processes> children{};
  for (pid_t& child : children) {
    child = in_child([&] {
      std::vector<std::thread> crowd;
      for (int i = 0; i < threads; ++i) {
        crowd.emplace_back([&] {
          robust_mutex lock = robust_mutex::open(page.at);
          for (int round = 0; round < rounds; ++round) {
            while (lock.try_lock_for(1s) == outcome::busy) {
            }
            *count += 1;
            lock.unlock();
          }
        });
      }
      for (std::thread& one : crowd) one.join();
    });
  }
  for (const pid_t child : children) CHECK(end_of(child) == 0);
  CHECK(*count == long{processes} * threads * rounds);
}

TEST_CASE("`owner` reports who holds it, and acquires nothing") {
  using state = robust_mutex::owner_report::state;
  shared_page page;
  robust_mutex lock = robust_mutex::create(page.at);
  if (lock.owner().what == state::unknown) return;
  CHECK(lock.owner().what == state::free);
  CHECK(lock.try_lock() == outcome::taken);
  const auto mine = lock.owner();
  CHECK(mine.what == state::held);
  CHECK(mine.thread == static_cast<std::uint32_t>(::gettid()));
  std::thread waiting([&] {
    CHECK(lock.try_lock_for(60s) == outcome::taken);
    const auto his = lock.owner();
    CHECK(his.what == state::held);
    CHECK(his.thread == static_cast<std::uint32_t>(::gettid()));
    CHECK(his.thread != mine.thread);
    lock.unlock();
  });
  // While a thread sleeps on it, the word has one more bit.
  for (int i = 0; i < 100 && lock.owner().thread == mine.thread; ++i) ::usleep(1000);
  CHECK(lock.owner().thread == mine.thread);
  lock.unlock();
  waiting.join();
  CHECK(lock.owner().what == state::free);
  const pid_t child = in_child([&] {
    (void)lock.try_lock();
    raise(SIGKILL);
  });
  end_of(child);
  CHECK(lock.owner().what == state::left);
  CHECK(lock.owner().what == state::left);
  CHECK(lock.try_lock() == outcome::inherited);
  CHECK(lock.owner().what == state::held);
  lock.unlock();
  CHECK(lock.owner().what == state::free);
}
