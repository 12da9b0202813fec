/// What every port must do, on each kind of segment that it has: run over the headers of cpp/src/os alone.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest.h>

#include <cstdint>
#include <cstring>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

#include <sharedmem/error.hpp>
#include <sharedmem/robust_mutex.hpp>

#include "os/os.hpp"
#include "roles.hpp"

using namespace sharedmem;
using roles::process;

namespace {

constexpr std::uint64_t tag = 0x5eed'0000'1234'5678;
constexpr std::size_t bytes = std::size_t{8} << 20;

os::segment make(backing kind) { return os::segment::create(kind, bytes, tag); }

bool gone(const segment_name& name) {
  try {
    (void)os::segment::open(name, tag);
    return false;
  } catch (const stale_handle&) {
    return true;
  }
}

volatile char* at(const os::segment& s, std::size_t offset) {
  return reinterpret_cast<volatile char*>(s.data()) + offset;
}

// ---- roles

const roles::declared attacher("attach", [](const roles::arguments& words) {
  os::segment s = roles::open_from(words);
  s.attach();
  if (*at(s, 100) != 'a') return 1;
  *at(s, 200) = 'b';
  roles::say_ready_and_wait();
  return *at(s, 300) == 'c' ? 0 : 2;
});

const roles::declared maker("make", [](const roles::arguments& words) {
  const auto kind = static_cast<backing>(std::stoi(words.at(0)));
  const os::segment s = make(kind);
  *at(s, 0) = 'm';
  const segment_name name = s.name();
  if (::write(STDOUT_FILENO, &name, sizeof name) != sizeof name) return 3;
  roles::say_ready_and_wait();
  return 0;
});

const roles::declared writes_in_look("write in look", [](const roles::arguments& words) {
  const os::segment s = roles::open_from(words);
  s.look(
      [](const void* base, std::size_t, void*) {
        *static_cast<volatile char*>(const_cast<void*>(base)) = 1;
        return true;
      },
      nullptr);
  return 0;
});

const roles::declared touches_forbidden("touch forbidden", [](const roles::arguments& words) {
  os::segment s = roles::open_from(words);
  s.attach();
  os::forbid(s.data() + bytes / 2, os::page_size());
  *at(s, bytes / 2 - 1) = 1;
  *at(s, bytes / 2 + os::page_size()) = 1;
  roles::say_ready_and_wait();
  *at(s, bytes / 2) = 1;
  return 0;
});

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

}  // namespace

TEST_CASE("a new segment is zero, aligned, of the size asked for, and takes no memory") {
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    const os::segment s = make(kind);
    REQUIRE(s.data() != nullptr);
    CHECK(reinterpret_cast<std::uintptr_t>(s.data()) % os::segment::alignment == 0);
    CHECK(s.bytes() == bytes);
    CHECK(s.name().kind == kind);
    CHECK(s.resident() == 0);
    CHECK(*at(s, 0) == 0);
    CHECK(*at(s, bytes - 1) == 0);
    CHECK(s.resident() > 0);
    CHECK_FALSE(s.text().empty());
  }
}

TEST_CASE("another process attaches it by name, and both see what either writes") {
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    const os::segment s = make(kind);
    *at(s, 100) = 'a';
    process other("attach", roles::words_of(s, tag));
    REQUIRE(other.wait_until_ready());
    CHECK(*at(s, 200) == 'b');
    *at(s, 300) = 'c';
    CHECK(other.wait() == 0);
  }
}

TEST_CASE("it outlives its maker, however that dies, and goes with its last user") {
  for (const backing kind : os::segment_kinds) {
    for (const bool killed : {false, true}) {
      CAPTURE(static_cast<int>(kind));
      CAPTURE(killed);
      process other("make", {std::to_string(static_cast<int>(kind))});
      segment_name name;
      REQUIRE(other.read(&name, sizeof name));
      REQUIRE(other.wait_until_ready());
      {
        os::segment s = os::segment::open(name, tag);
        s.attach();
        if (killed)
          other.kill();
        else
          CHECK(other.wait() == 0);
        CHECK(*at(s, 0) == 'm');
      }
      CHECK(gone(name));
    }
  }
}

TEST_CASE("the last user may be killed: nothing is left") {
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    process other("make", {std::to_string(static_cast<int>(kind))});
    segment_name name;
    REQUIRE(other.read(&name, sizeof name));
    REQUIRE(other.wait_until_ready());
    other.kill();
    CHECK(gone(name));
  }
}

TEST_CASE("a look is whole, read-only, and over when it returns") {
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    const os::segment s = make(kind);
    *at(s, bytes - 1) = 'z';
    const os::segment found = os::segment::open(s.name(), tag);
    CHECK(found.bytes() == bytes);
    for (const bool answer : {true, false}) {
      struct seen {
        bool answer;
        const void* base = nullptr;
        char last = 0;
      } what{answer};
      CHECK(found.look(
                [](const void* base, std::size_t size, void* context) {
                  auto& w = *static_cast<seen*>(context);
                  w.base = base;
                  w.last = static_cast<const char*>(base)[size - 1];
                  return w.answer;
                },
                &what) == answer);
      CHECK(what.base != s.data());
      CHECK(what.last == 'z');
      CHECK(found.data() == nullptr);
    }
    process other("write in look", roles::words_of(s, tag));
    CHECK(other.wait() != 0);
    CHECK(*at(s, 0) == 0);
  }
}

TEST_CASE("a second, read-only view shows what is written through the first, and cannot be written to") {
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    const os::segment first = make(kind);
    {
      const os::segment second = first.attach_read_only();
      CHECK(second.bytes() == first.bytes());
      CHECK(second.data() != first.data());
      CHECK(reinterpret_cast<std::uintptr_t>(second.data()) % os::segment::alignment == 0);
      *at(first, 5000) = 'x';
      CHECK(*at(second, 5000) == 'x');
      CHECK_FALSE(os::fault_in(second.data(), os::page_size()) == 0);
    }
    *at(first, 5000) = 'y';  // the first view is still there, and others find the object by it
    os::segment other = os::segment::open(first.name(), tag);
    other.attach();
    CHECK(*at(other, 5000) == 'y');
  }
}

TEST_CASE("moving keeps the view, and what was moved from is empty") {
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    os::segment s = make(kind);
    const std::byte* base = s.data();
    os::segment moved = std::move(s);
    CHECK(moved.data() == base);
    CHECK(s.data() == nullptr);  // NOLINT: that is what is tested
    os::segment other = make(kind);
    other = std::move(moved);
    CHECK(other.data() == base);
    CHECK_FALSE(gone(other.name()));
  }
}

TEST_CASE("what is no segment of this library is refused") {
  CHECK_THROWS_AS((void)os::segment::create(backing::none, bytes, tag), std::invalid_argument);
  CHECK_THROWS_AS((void)os::segment::open({}, tag), std::invalid_argument);
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    CHECK_THROWS_AS((void)os::segment::create(kind, 0, tag), std::invalid_argument);
    CHECK_THROWS_AS((void)os::segment::open({kind, -1, 0}, tag + 1), stale_handle);
  }
}

TEST_CASE("pages that are given back read as zero for everybody, and are not resident") {
  if (!os::punching_works()) {
    MESSAGE("skipped: this system cannot give pages of shared memory back");
    return;
  }
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    const os::segment s = make(kind);
    std::memset(s.data(), 'x', bytes);
    os::segment other = os::segment::open(s.name(), tag);
    other.attach();
    const std::uint64_t before = s.resident();
    CHECK(os::punch(other.data(), bytes / 2));
    CHECK(s.resident() + bytes / 2 <= before);
    CHECK(*at(s, 0) == 0);
    CHECK(*at(s, bytes / 2) == 'x');
  }
}

TEST_CASE("a forbidden range ends the process that touches it, its neighbours do not") {
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    const os::segment s = make(kind);
    process other("touch forbidden", roles::words_of(s, tag));
    CHECK(other.wait_until_ready());
    CHECK(other.wait() != 0);
    CHECK(*at(s, bytes / 2) == 0);
  }
}

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

TEST_CASE("a segment is seen in the processes that have it") {
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    const os::segment s = make(kind);
    *at(s, 100) = 'a';
    CHECK(maps_segment(this_process().pid, s.name(), true));
    process with("attach", roles::words_of(s, tag)), without("wait", {});
    REQUIRE(with.wait_until_ready());
    REQUIRE(without.wait_until_ready());
    CHECK(maps_segment(with.pid(), s.name(), true));
    CHECK_FALSE(maps_segment(without.pid(), s.name(), false));
  }
}

TEST_CASE("a lock whose owner was killed is inherited, and says so") {
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

TEST_CASE("the machine tells its memory, its clock and its random bytes") {
  const memory_estimate now = available_memory();
  CHECK(now.total > 0);
  CHECK(now.available <= now.total);
  CHECK(std::strlen(now.limit) > 0);
  CHECK(core_count() >= 1);
  CHECK(os::usable_cores() >= 1);
  CHECK(os::page_size() >= 4096);
  const std::uint64_t before = monotonic_ns();
  CHECK(monotonic_ns() >= before);
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

int main(int count, char** values) {
  int status = 0;
  if (roles::play(count, values, status)) return status;
  doctest::Context context(count, values);
  return context.run();
}
