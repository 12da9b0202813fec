/// Arenas among processes of which none was forked: what every port must do, over the public interface.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <sharedmem/arena.hpp>
#include <sharedmem/error.hpp>
#include <sharedmem/handle.hpp>

#include "os/fork_handlers.hpp"
#include "process_tools.hpp"
#include "shared/fault.hpp"

namespace {

// ---- roles: the first word is the arena's locator

const roles::declared doubles("double", [](const roles::arguments& words) {
  const auto a = arena_from(words);
  claim c;
  if (!roles::read_input(&c, sizeof c)) return 1;
  allocation block = a->acquire(c);
  const bool right = filled(block, 1);
  fill(block, 2);
  a->release(block.ref);
  return right ? 0 : 2;
});

const roles::declared sends("send", [](const roles::arguments& words) {
  const auto a = arena_from(words);
  for (const std::string& size : {words.at(1), words.at(2), words.at(3)}) {
    allocation block = a->allocate(std::stoull(size));
    fill(block, 3);
    const claim c = a->share(block.ref, true);
    a->release(block.ref);
    if (!roles::write_output(&c, sizeof c)) return 1;
  }
  roles::say_ready_and_wait();
  return 0;
});

const roles::declared holds("hold", [](const roles::arguments& words) {
  const auto a = arena_from(words);
  std::vector<allocation> held;
  for (const std::uint64_t size : {std::uint64_t{1}, std::uint64_t{1000}, std::uint64_t{100'000}, 5 * mib}) {
    for (int i = 0; i < 5; ++i) {
      held.push_back(a->allocate(size));
      fill(held.back(), 4);
      if (i % 2 == 0) (void)a->share(held.back().ref, i % 4 == 0);
    }
  }
  roles::say_ready_and_wait();
  return 0;
});

const roles::declared makes_an_arena("make arena", [](const roles::arguments&) {
  const auto a = arena::create(tiny);
  allocation block = a->allocate(100);
  fill(block, 5);
  const std::string text = to_text(a->where());
  char line[256] = {};
  text.copy(line, sizeof line - 1);
  if (!roles::write_output(line, sizeof line)) return 1;
  roles::say_ready_and_wait();
  a->release(block.ref);
  return 0;
});

const roles::declared ends("end", [](const roles::arguments&) { return 0; });

/// All that can be done with an arena: dies at the step that SHAREDMEM_FAULT names.
const roles::declared works("work", [](const roles::arguments& words) {
  const auto a = arena_from(words);
  claim given;
  if (!roles::read_input(&given, sizeof given)) return 1;
  allocation theirs = a->acquire(given);
  for (int round = 0; round < 3; ++round) {
    std::vector<allocation> held;
    for (const std::uint64_t size :
         {std::uint64_t{100}, std::uint64_t{3000}, std::uint64_t{70'000}, 3 * mib, 9 * mib})
      held.push_back(a->allocate(size));
    for (allocation& each : held) {
      const claim c = a->share(each.ref, true);
      allocation again = a->acquire(c);
      a->release(again.ref);
      const claim unread = a->share(each.ref, true);
      if (round != 1) a->give_back(unread);
    }
    for (allocation& each : held) a->release(each.ref);
    (void)a->trim();
    (void)a->collect(round == 2);
  }
  a->release(theirs.ref);
  return 0;
});

}  // namespace

TEST_CASE("another process that inherits nothing works on the same memory") {
  const auto a = arena::create(tiny);
  for (const std::uint64_t size : {std::uint64_t{1}, std::uint64_t{5000}, 3 * mib}) {
    CAPTURE(size);
    allocation block = a->allocate(size);
    fill(block, 1);
    process other("double", words_of(*a));
    const claim c = a->share(block.ref, true);
    REQUIRE(other.write(&c, sizeof c));
    CHECK(other.wait() == 0);
    CHECK(filled(block, 2));
    a->release(block.ref);
  }
  nothing_left(*a);
}

TEST_CASE("a process that has ended can be written to, which fails") {
  process other("end", {});
  char byte = 0;
  CHECK_FALSE(other.read(&byte, 1));
  // Its output has been closed, but a system may close its input a moment later.
  while (other.write(&byte, 1)) std::this_thread::sleep_for(std::chrono::milliseconds{1});
  CHECK(other.wait() == 0);
}

TEST_CASE("a message outlives its sender, however that ends") {
  for (const bool killed : {false, true}) {
    CAPTURE(killed);
    const auto a = arena::create(tiny);
    roles::arguments words = words_of(*a);
    words.insert(words.end(), {"10", "30000", "5000000"});
    process other("send", words);
    claim sent[3];
    for (claim& c : sent) REQUIRE(other.read(&c, sizeof c));
    REQUIRE(other.wait_until_ready());
    if (killed)
      other.kill();
    else
      CHECK(other.wait() == 0);
    (void)a->collect(false);
    for (const claim& c : sent) {
      allocation block = a->acquire(c);
      CHECK(filled(block, 3));
      a->release(block.ref);
    }
    nothing_left(*a);
  }
}

TEST_CASE("what a killed process held comes back, and others keep what they have") {
  const auto a = arena::create(tiny);
  allocation mine = a->allocate(10'000);
  fill(mine, 8);
  for (int round = 0; round < 3; ++round) {
    process one("hold", words_of(*a)), two("hold", words_of(*a));
    REQUIRE(one.wait_until_ready());
    REQUIRE(two.wait_until_ready());
    CHECK(a->statistics().participants == 3);
    one.kill();
    two.kill();
    (void)a->collect(true);
    CHECK(a->statistics().participants == 1);
  }
  CHECK(filled(mine, 8));
  a->release(mine.ref);
  nothing_left(*a);
}

TEST_CASE("an arena outlives its maker, and goes with its last user") {
  for (const bool killed : {false, true}) {
    CAPTURE(killed);
    process maker("make arena", {});
    char line[256] = {};
    REQUIRE(maker.read(line, sizeof line));
    REQUIRE(maker.wait_until_ready());
    const locator where = parse_locator(std::string(line)).value();
    {
      const auto a = arena::attach(where);
      if (killed)
        maker.kill();
      else
        CHECK(maker.wait() == 0);
      allocation block = a->allocate(1000);
      fill(block, 9);
      CHECK(filled(block, 9));
      a->release(block.ref);
      nothing_left(*a);
    }
    CHECK_THROWS_AS((void)arena::attach(where), stale_handle);
  }
}

TEST_CASE("an arena grows by segments that other processes attach") {
  const auto a = arena::create(tiny);
  std::vector<allocation> held;
  for (int i = 0; i < 6; ++i) held.push_back(a->allocate(20 * mib, 64, pages::lazy));
  CHECK(a->statistics().arena_bytes > 2 * tiny);
  fill(held.back(), 1);
  process other("double", words_of(*a));
  const claim c = a->share(held.back().ref, true);
  REQUIRE(other.write(&c, sizeof c));
  CHECK(other.wait() == 0);
  CHECK(filled(held.back(), 2));
  for (allocation& each : held) a->release(each.ref);
  nothing_left(*a);
}

TEST_CASE("handles that were made up are stale, whatever they name") {
  const auto a = arena::create(tiny);
  allocation block = a->allocate(100);
  const claim right = a->share(block.ref, false);
  for (std::uint32_t number = 1; number != 0; number *= 2) {
    for (const std::uint32_t at : {number, right.block + number, number - 1}) {
      claim forged = right;
      forged.block = at;
      if (at == right.block) continue;
      CHECK_THROWS_AS((void)a->acquire(forged), stale_handle);
    }
  }
  claim old = right;
  ++old.generation;
  CHECK_THROWS_AS((void)a->acquire(old), stale_handle);
  a->release(block.ref);
  nothing_left(*a);
}

TEST_CASE("memory that is said to be zero is zero, also when it was used and given back") {
  const auto a = arena::create(tiny);
  for (int round = 0; round < 4; ++round) {
    for (const std::uint64_t size : {std::uint64_t{100}, std::uint64_t{50'000}, 7 * mib}) {
      allocation block = a->allocate(size);
      if (block.zeroed)
        CHECK(
            std::all_of(block.data, block.data + block.bytes, [](std::byte b) { return b == std::byte{0}; }));
      std::memset(block.data, 0xaa, static_cast<std::size_t>(block.bytes));
      a->release(block.ref);
    }
    (void)a->trim();
  }
  nothing_left(*a);
}

TEST_CASE("threads allocate and end, and what they cached comes back") {
  const auto a = arena::create(tiny);
  for (int round = 0; round < 5; ++round) {
    std::vector<std::thread> all;
    for (int t = 0; t < 8; ++t)
      all.emplace_back([&] {
        std::vector<allocation> held;
        for (int i = 0; i < 300; ++i) {
          held.push_back(a->allocate(static_cast<std::uint64_t>(i) * 17 % 4000));
          if (held.size() > 20) {
            a->release(held.front().ref);
            held.erase(held.begin());
          }
        }
        for (allocation& each : held) a->release(each.ref);
      });
    for (std::thread& each : all) each.join();
  }
  nothing_left(*a);
}

TEST_CASE("what does not fit is refused with numbers, and nothing is lost by it") {
  const auto a = arena::create(tiny);
  try {
    (void)a->allocate(std::uint64_t{1} << 50);
    FAIL("it was given");
  } catch (const no_memory& refused) {
    CHECK(std::string(refused.what()).find("1.0 PiB") != std::string::npos);
  }
  nothing_left(*a);
}

#ifdef SHAREDMEM_FAULT_POINTS
TEST_CASE("a process may die at each step, and all that it held comes back") {
  int reached = 0;
  const auto a = arena::create(8 * tiny);  // a segment that only dead processes had attached would be lost
  for (unsigned k = 0; point_name(k) != nullptr; ++k) {
    for (const char* count : {"1", "4"}) {
      CAPTURE(point_name(k));
      CAPTURE(count);
      allocation mine = a->allocate(20'000);
      fill(mine, 8);
      set_environment("SHAREDMEM_FAULT", std::string(point_name(k)) + ":" + count);
      process other("work", words_of(*a));
      set_environment("SHAREDMEM_FAULT", "none");
      const claim c = a->share(mine.ref, false);  // a lease that it does not live to take would stay ours
      (void)other.write(&c, sizeof c);
      if (other.wait() != 0) ++reached;
      CHECK(filled(mine, 8));
      a->release(mine.ref);
      nothing_left(*a);
    }
  }
  MESSAGE(reached, " deaths");
  CHECK(reached >= 30);
}
#endif

int main(int count, char** values) {
  int status = 0;
  if (roles::play(count, values, status)) return status;
  doctest::Context context(count, values);
  return context.run();
}
