/// What every port must do besides segments: censuses, processes, locks, the machine.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>

#include <sharedmem/error.hpp>
#include <sharedmem/futex.hpp>
#include <sharedmem/robust_mutex.hpp>

#include "os/os.hpp"
#include "roles.hpp"

using namespace sharedmem;
using roles::process;

namespace {

constexpr std::uint64_t tag = 0x5eed'0000'1234'5679;

/// Only what has failed waits so long.
constexpr std::chrono::seconds long_time{30};

std::uint32_t* word_in(const os::segment& s) { return reinterpret_cast<std::uint32_t*>(s.data()); }

/// With memory promised to all of it.
os::segment make(backing kind) {
  constexpr std::size_t bytes = std::size_t{1} << 20;
  os::segment made = os::segment::create(kind, bytes, tag);
  if (!made.commit(0, bytes)) throw std::bad_alloc();
  return made;
}

const roles::declared counted("count", [](const roles::arguments& words) {
  const census mine = census::attach(std::stoi(words.at(0)));
  roles::say_ready_and_wait();
  return 0;
});

const roles::declared waits("wait", [](const roles::arguments&) {
  roles::say_ready_and_wait();
  return 0;
});

const roles::declared locks("lock", [](const roles::arguments& words) {
  os::segment s = roles::open_from(words);
  s.attach();
  robust_mutex lock = robust_mutex::open(s.data());
  const auto outcome = lock.try_lock();
  roles::say_ready_and_wait();
  return outcome == robust_mutex::outcome::taken ? 0 : 1;
});

/// Counts up behind a lock, whose outcome it notes. The words behind the lock are: the count, and how often the lock was inherited.
constexpr int rounds = 500;

void count_up(std::byte* at) {
  robust_mutex lock = robust_mutex::open(at);
  auto* const words = reinterpret_cast<volatile std::uint64_t*>(at + robust_mutex::bytes);
  for (int i = 0; i < rounds; ++i) {
    auto how = robust_mutex::outcome::busy;
    while (how == robust_mutex::outcome::busy) how = lock.try_lock_for(long_time);
    words[0] = words[0] + 1;
    if (how == robust_mutex::outcome::inherited) words[1] = words[1] + 1;
    lock.unlock();
  }
}

const roles::declared counts_up("count up", [](const roles::arguments& words) {
  os::segment s = roles::open_from(words);
  s.attach();
  std::thread other([&] { count_up(s.data()); });
  count_up(s.data());
  other.join();
  return 0;
});

const roles::declared changes("change", [](const roles::arguments& words) {
  os::segment s = roles::open_from(words);
  s.attach();
  roles::say_ready_and_wait();
  std::atomic_ref(*word_in(s)).store(1, std::memory_order_release);
  (void)wake(word_in(s), 1);
  return 0;
});

}  // namespace

TEST_CASE("a census counts the processes that have it, whatever they die of") {
  census mine;
  try {
    mine = census::create();
  } catch (const error&) {
    MESSAGE("skipped: this system has no census");
    return;
  }
  CHECK(mine.processes() == 1);
  const std::string id = std::to_string(mine.id());
  process one("count", {id}), two("count", {id});
  REQUIRE(one.wait_until_ready());
  REQUIRE(two.wait_until_ready());
  CHECK(mine.processes() == 3);
  one.kill();
  CHECK(mine.processes() == 2);
  CHECK(two.wait() == 0);
  CHECK(mine.processes() == 1);
}

TEST_CASE("a process is itself, alive while it runs, and dead for sure once it has been waited for") {
  const process_id me = this_process();
  CHECK(me == this_process());
  CHECK(this_namespaces() == this_namespaces());
  CHECK(look_at(me) == liveness::alive);
  CHECK(host_id() == host_id());
  CHECK(host_id() != 0);
  process other("wait", {});
  REQUIRE(other.wait_until_ready());
  CHECK(look_at({other.pid(), 0}) != liveness::dead);
  CHECK(look_at({other.pid(), me.start + 1'000'000}) != liveness::alive);
  const std::uint32_t pid = other.pid();
  other.kill();
  CHECK(look_at({pid, 0}) == liveness::dead);
}

TEST_CASE("a lock whose owner was killed is inherited, and this is reported") {
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    const os::segment s = make(kind);
    robust_mutex lock = robust_mutex::create(s.data());
    process other("lock", roles::words_of(s, tag));
    REQUIRE(other.wait_until_ready());
    CHECK(lock.try_lock() == robust_mutex::outcome::busy);
    other.kill();
    CHECK(lock.try_lock() == robust_mutex::outcome::inherited);
    lock.unlock();
    CHECK(lock.try_lock() == robust_mutex::outcome::taken);
    lock.unlock();
  }
}

TEST_CASE("a lock is not given twice to one thread, and a wait for it ends") {
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    const os::segment s = make(kind);
    robust_mutex lock = robust_mutex::create(s.data());
    REQUIRE(lock.try_lock() == robust_mutex::outcome::taken);
    CHECK_THROWS_AS((void)lock.try_lock_for(long_time), error);
    robust_mutex::outcome of_other{};
    constexpr std::chrono::milliseconds limit{20};
    const auto begin = std::chrono::steady_clock::now();
    std::thread([&] { of_other = lock.try_lock_for(limit); }).join();
    CHECK(of_other == robust_mutex::outcome::busy);
    CHECK(std::chrono::steady_clock::now() - begin >= limit);
    std::thread([&] { of_other = lock.try_lock_for(-long_time); }).join();
    CHECK(of_other == robust_mutex::outcome::busy);
    lock.unlock();
    std::thread([&] {
      of_other = lock.try_lock_for(long_time);
      lock.unlock();
    }).join();
    CHECK(of_other == robust_mutex::outcome::taken);
  }
}

TEST_CASE(
    "a lock that is given back is not inherited, and one thread at a time has it, in several processes") {
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    const os::segment s = make(kind);
    (void)robust_mutex::create(s.data());
    process one("count up", roles::words_of(s, tag)), two("count up", roles::words_of(s, tag));
    CHECK(one.wait() == 0);
    CHECK(two.wait() == 0);
    const auto* const words = reinterpret_cast<const std::uint64_t*>(s.data() + robust_mutex::bytes);
    CHECK(words[0] == 4 * rounds);
    CHECK(words[1] == 0);
  }
}

TEST_CASE("a lock tells which thread holds it, and that its owner has ended") {
  using state = robust_mutex::owner_report::state;
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    const os::segment s = make(kind);
    robust_mutex lock = robust_mutex::create(s.data());
    if (lock.owner().what == state::unknown) {
      MESSAGE("skipped: this system does not tell");
      return;
    }
    CHECK(lock.owner().what == state::free);
    REQUIRE(lock.try_lock() == robust_mutex::outcome::taken);
    const auto mine = lock.owner();
    CHECK(mine.what == state::held);
    std::thread([&] { CHECK(lock.owner().thread == mine.thread); }).join();
    lock.unlock();
    std::thread([&] {
      (void)lock.try_lock();
      CHECK(lock.owner().what == state::held);
      CHECK(lock.owner().thread != mine.thread);
    }).join();
    CHECK(lock.owner().what == state::left);
    CHECK(lock.try_lock() == robust_mutex::outcome::inherited);
    CHECK(lock.owner().thread == mine.thread);
    lock.unlock();
    process other("lock", roles::words_of(s, tag));
    REQUIRE(other.wait_until_ready());
    CHECK(lock.owner().what == state::held);
    CHECK(lock.owner().thread != mine.thread);
    other.kill();
    CHECK(lock.owner().what == state::left);
  }
}

TEST_CASE("a lock whose owner thread ended is inherited") {
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    const os::segment s = make(kind);
    robust_mutex lock = robust_mutex::create(s.data());
    std::thread([&] { (void)lock.try_lock(); }).join();
    CHECK(lock.try_lock() == robust_mutex::outcome::inherited);
    lock.unlock();
  }
}

TEST_CASE("a wait for a word ends at its limit, or at once if the word differs") {
  alignas(4) std::uint32_t word = 5;
  CHECK(wait_on(&word, 4, long_time) == wait_end::changed);
  CHECK(wait_on(&word, 5, std::chrono::seconds{0}) == wait_end::timed_out);
  CHECK(wait_on(&word, 5, std::chrono::seconds{-1}) == wait_end::timed_out);
  constexpr std::chrono::milliseconds limit{30};
  const auto begin = std::chrono::steady_clock::now();
  CHECK(wait_on(&word, 5, limit) == wait_end::timed_out);
  CHECK(std::chrono::steady_clock::now() - begin >= limit);
  const auto* const odd = reinterpret_cast<std::uint32_t*>(reinterpret_cast<std::byte*>(&word) + 1);
  CHECK_THROWS_AS((void)wait_on(odd, 5, long_time), std::invalid_argument);
}

TEST_CASE("a thread that waits for a word is woken by another thread, even if the word stays as it was") {
  for (const int count : {1, std::numeric_limits<int>::max()}) {
    CAPTURE(count);
    alignas(4) std::uint32_t word = 0;
    std::atomic<bool> ended{false};
    wait_end how{};
    std::thread waiter([&] {
      how = wait_on(&word, 0, long_time);
      ended = true;
    });
    while (!ended) {
      (void)wake(&word, count);
      std::this_thread::yield();
    }
    waiter.join();
    CHECK(how == wait_end::woken);
  }
}

TEST_CASE("a thread that waits for a word notices that another process has changed it") {
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    const os::segment s = make(kind);
    process other("change", roles::words_of(s, tag));
    REQUIRE(other.wait_until_ready());
    wait_end how{};
    std::thread waiter([&] { how = wait_on(word_in(s), 0, long_time); });
    other.go_on();
    waiter.join();
    CHECK(how != wait_end::timed_out);
    CHECK(std::atomic_ref(*word_in(s)).load() == 1);
    CHECK(other.wait() == 0);
  }
}

TEST_CASE("the machine has memory, a clock and random bytes") {
  const memory_estimate now = available_memory();
  CHECK(now.total > 0);
  CHECK(now.available <= now.total);
  CHECK(std::strlen(now.limit) > 0);
  CHECK(core_count() >= 1);
  CHECK(os::usable_cores() >= 1);
  CHECK(os::page_size() >= 4096);
  const std::uint64_t before = monotonic_ns();
  CHECK(monotonic_ns() >= before);
  std::this_thread::sleep_for(std::chrono::milliseconds{20});
  CHECK(monotonic_ns() - before >= 20'000'000);
  std::set<std::uint64_t> seen;
  for (int i = 0; i < 100; ++i) {
    std::uint64_t word = 0;
    random_bytes(&word, sizeof word);
    CHECK(seen.insert(word).second);
  }
  void* page = map_private(100);
  REQUIRE(page != nullptr);
  CHECK(static_cast<char*>(page)[99] == 0);
  unmap_private(page, 100);
}

TEST_CASE("each part of divided work is done once, before the call returns") {
  for (const unsigned parts : {1U, 2U, os::most_parts}) {
    CAPTURE(parts);
    std::atomic<int> done[os::most_parts] = {};
    os::run_parts(
        parts,
        [](void* context, unsigned part) noexcept {
          if (part % 2 == 1) std::this_thread::sleep_for(std::chrono::milliseconds{20});
          ++static_cast<std::atomic<int>*>(context)[part];
        },
        done);
    for (unsigned part = 0; part < os::most_parts; ++part) CHECK(done[part] == (part < parts ? 1 : 0));
  }
}

TEST_CASE("what is to be done at the end of a thread is done then, in that thread") {
  static std::atomic<int> ended{0};
  std::thread([] {
    REQUIRE(os::at_thread_end([](void* context) noexcept { ended += context == &ended ? 1 : 2; }, &ended));
    CHECK(ended == 0);
  }).join();
  CHECK(ended == 1);
}

int main(int count, char** values) {
  int status = 0;
  if (roles::play(count, values, status)) return status;
  doctest::Context context(count, values);
  return context.run();
}
