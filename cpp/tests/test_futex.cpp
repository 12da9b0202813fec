#include <doctest.h>

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <thread>
#include <vector>

#include <sharedmem/error.hpp>
#include <sharedmem/futex.hpp>

using namespace sharedmem;
using namespace std::chrono_literals;

namespace {

/// Memory that forked children share.
struct shared_page {
  static constexpr std::size_t size = 4096;
  void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

  shared_page() = default;
  shared_page(const shared_page&) = delete;
  shared_page& operator=(const shared_page&) = delete;
  ~shared_page() { munmap(at, size); }

  std::uint32_t* word() const { return static_cast<std::uint32_t*>(at); }
};

std::uint32_t look(const std::uint32_t* word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }

/// Sleeps until the word is no longer 0, however the single waits end.
void wait_for_change(const std::uint32_t* word) {
  while (look(word) == 0) (void)wait_on(word, 0, 10s);
}

/// Calls `wake` until it has woken `wanted` threads in all.
void wake_in_all(const std::uint32_t* word, int wanted) {
  for (int woken = 0; woken < wanted;) {
    woken += wake(word, wanted - woken);
    std::this_thread::sleep_for(1ms);
  }
}

}  // namespace

TEST_CASE("a word with another value does not put the thread to sleep") {
  const std::uint32_t word = 7;
  CHECK(wait_on(&word, 8, 1h) == wait_end::changed);
  CHECK(wait_on(&word, 8, 0ns) == wait_end::changed);
}

TEST_CASE("a wait ends with its limit") {
  const std::uint32_t word = 7;
  CHECK(wait_on(&word, 7, 0ns) == wait_end::timed_out);
  CHECK(wait_on(&word, 7, std::chrono::nanoseconds::min()) == wait_end::timed_out);
  const auto begin = std::chrono::steady_clock::now();
  CHECK(wait_on(&word, 7, 1'020ms) == wait_end::timed_out);
  CHECK(std::chrono::steady_clock::now() - begin >= 1'020ms);
}

TEST_CASE("wake returns how many it woke, and wakes at most that many") {
  shared_page page;
  std::atomic<int> awake{0};
  std::vector<std::thread> crowd;
  for (int i = 0; i < 3; ++i) {
    crowd.emplace_back([&] {
      while (wait_on(page.word(), 0, std::chrono::nanoseconds::max()) != wait_end::woken) {
      }
      ++awake;
    });
  }
  for (int i = 0; i < 50; ++i) {  // until they sleep, and then, too
    CHECK(wake(page.word(), 0) == 0);
    CHECK(wake(page.word(), -1) == 0);
    std::this_thread::sleep_for(1ms);
  }
  wake_in_all(page.word(), 1);
  while (awake.load() != 1) std::this_thread::yield();
  wake_in_all(page.word(), 2);
  for (std::thread& one : crowd) one.join();
  CHECK(awake.load() == 3);
  CHECK(wake(page.word(), std::numeric_limits<int>::max()) == 0);
}

TEST_CASE("processes wake each other, at different addresses and through a mapping for reading") {
  shared_page page;
  void* const again = mremap(page.at, 0, shared_page::size, MREMAP_MAYMOVE);
  REQUIRE(again != MAP_FAILED);
  REQUIRE(again != page.at);
  REQUIRE(mprotect(again, shared_page::size, PROT_READ) == 0);
  const pid_t child = fork();
  if (child == 0) {
    while (wait_on(static_cast<const std::uint32_t*>(again), 0, 10s) != wait_end::woken) {
    }
    _exit(0);
  }
  wake_in_all(page.word(), 1);
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(status == 0);
  munmap(again, shared_page::size);
}

TEST_CASE("a killed sleeper takes no wake-up from the others") {
  shared_page page;
  const pid_t child = fork();
  if (child == 0) {
    wait_for_change(page.word());
    _exit(1);
  }
  std::atomic<bool> awake{false};
  std::thread other([&] {
    while (wait_on(page.word(), 0, 10s) != wait_end::woken) {
    }
    awake.store(true);
  });
  std::this_thread::sleep_for(20ms);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  wake_in_all(page.word(), 1);
  other.join();
  CHECK(awake.load());
}

TEST_CASE("a signal ends a wait") {
  struct sigaction quiet{};
  quiet.sa_handler = [](int) {};
  quiet.sa_flags = SA_RESTART;
  struct sigaction before{};
  sigaction(SIGUSR1, &quiet, &before);
  shared_page page;
  std::atomic<bool> done{false};
  std::thread sleeper([&] {
    CHECK(wait_on(page.word(), 0, 1h) == wait_end::interrupted);
    done.store(true);
  });
  while (!done.load()) {
    pthread_kill(sleeper.native_handle(), SIGUSR1);
    std::this_thread::sleep_for(1ms);
  }
  sleeper.join();
  sigaction(SIGUSR1, &before, nullptr);
}

TEST_CASE("words that cannot be waited on") {
  alignas(8) const std::array<std::byte, 8> bytes{};
  const auto* askew = reinterpret_cast<const std::uint32_t*>(bytes.data() + 2);
  CHECK_THROWS_AS((void)wait_on(askew, 0, 1s), std::invalid_argument);
  auto* gone = mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  munmap(gone, 4096);
  errno = ERANGE;
  CHECK(wake(static_cast<const std::uint32_t*>(gone), 1) == 0);
  CHECK(errno == ERANGE);
  try {
    (void)wait_on(static_cast<const std::uint32_t*>(gone), 0, 1s);
    FAIL("no error");
  } catch (const error& e) {
    CHECK(e.code().value() == EFAULT);
  }
}
