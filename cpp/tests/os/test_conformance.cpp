/// What every port must do, on each kind of segment that it has: run over the headers of cpp/src/os alone.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include <sharedmem/error.hpp>

#include "os/os.hpp"
#include "roles.hpp"

using namespace sharedmem;
using roles::process;

namespace {

constexpr std::uint64_t tag = 0x5eed'0000'1234'5678;
constexpr std::size_t bytes = std::size_t{8} << 20;

/// With memory promised to all of it.
os::segment make(backing kind) {
  os::segment made = os::segment::create(kind, bytes, tag);
  if (!made.commit(0, bytes)) throw std::bad_alloc();
  return made;
}

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
  if (!roles::write_output(&name, sizeof name)) return 3;
  roles::say_ready_and_wait();
  return 0;
});

const roles::declared writes_in_look("write in look", [](const roles::arguments& words) {
  const os::segment s = roles::open_from(words);
  s.look(
      [](const void* base, std::size_t size,
         void*) {  // at the end, where nothing but the view's rights forbids it
        static_cast<volatile char*>(const_cast<void*>(base))[size - 1] = 1;
        return true;
      },
      nullptr);
  return 0;
});

const roles::declared writes_through_read_only("write read-only", [](const roles::arguments& words) {
  os::segment s = roles::open_from(words);
  s.attach();
  const os::segment second = s.attach_read_only();
  if (*at(second, 0) != 'r') return 0;
  roles::say_ready_and_wait();
  *at(second, 0) = 'w';
  return 0;
});

/// The last word says whether the forbidden page is to be read or written.
const roles::declared touches_forbidden("touch forbidden", [](const roles::arguments& words) {
  os::segment s = roles::open_from(words);
  s.attach();
  if (!os::forbid(s.data() + bytes / 2, os::page_size())) return 0;
  *at(s, bytes / 2 - 1) = 1;
  *at(s, bytes / 2 + os::page_size()) = 1;
  roles::say_ready_and_wait();
  if (words.at(4) == "read") return *at(s, bytes / 2) == 0 ? 0 : 2;
  *at(s, bytes / 2) = 1;
  return 0;
});

const roles::declared promises("commit", [](const roles::arguments& words) {
  os::segment s = roles::open_from(words);
  s.attach();
  if (!s.commit(bytes / 2, os::page_size())) return 1;
  *at(s, bytes / 2) = 'p';
  roles::say_ready_and_wait();
  return *at(s, bytes - 1) == 'q' ? 0 : 2;
});

const roles::declared waits("wait", [](const roles::arguments&) {
  roles::say_ready_and_wait();
  return 0;
});

}  // namespace

TEST_CASE("a new segment is zero, aligned, of the requested size, and takes no memory") {
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    os::segment s = os::segment::create(kind, bytes, tag);
    REQUIRE(s.data() != nullptr);
    CHECK(reinterpret_cast<std::uintptr_t>(s.data()) % os::segment::alignment == 0);
    CHECK(s.bytes() == bytes);
    CHECK(s.name().kind == kind);
    CHECK(s.resident() == 0);
    REQUIRE(s.commit(0, 100));  // whole pages, as many as that needs
    REQUIRE(s.commit(bytes - 1, 1));
    REQUIRE(s.commit(0, 200));
    REQUIRE(s.commit(bytes / 2, 0));  // nothing to do
    CHECK(*at(s, 0) == 0);
    CHECK(*at(s, os::page_size() - 1) == 0);
    CHECK(*at(s, bytes - 1) == 0);
    CHECK(s.resident() > 0);
    if (os::memory_is_promised) CHECK(s.resident() == 2 * os::page_size());
    CHECK_FALSE(s.text().empty());
  }
}

TEST_CASE(
    "memory that was promised keeps its bytes when it is promised again, and is there for every process") {
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    os::segment s = os::segment::create(kind, bytes, tag);
    process other("commit", roles::words_of(s, tag));
    REQUIRE(other.wait_until_ready());
    CHECK(*at(s, bytes / 2) == 'p');
    REQUIRE(s.commit(0, bytes));
    CHECK(*at(s, bytes / 2) == 'p');
    CHECK(*at(s, bytes / 2 - 1) == 0);
    *at(s, bytes - 1) = 'q';
    CHECK(other.wait() == 0);
  }
}

TEST_CASE("a segment in which no memory was committed yet reads as zeros") {
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    const os::segment s = os::segment::create(kind, bytes, tag);
    const os::segment found = os::segment::open(s.name(), tag);
    const auto is_zero = [](const void* base, std::size_t, void*) {
      return *static_cast<const volatile char*>(base) == 0;
    };
    CHECK(found.look(is_zero, nullptr));
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
    CHECK(*at(s, bytes - 1) == 'z');
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
    *at(first, 0) = 'r';
    process writer("write read-only", roles::words_of(first, tag));
    CHECK(writer.wait_until_ready());
    CHECK(writer.wait() != 0);
    CHECK(*at(first, 0) == 'r');
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

TEST_CASE("an object that is not a segment of this library is refused") {
  CHECK_THROWS_AS((void)os::segment::create(backing::none, bytes, tag), std::invalid_argument);
  CHECK_THROWS_AS((void)os::segment::open({}, tag), std::invalid_argument);
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    CHECK_THROWS_AS((void)os::segment::create(kind, 0, tag), std::invalid_argument);
    CHECK_THROWS_AS((void)os::segment::open({kind, -1, 0}, ~tag), stale_handle);
  }
}

TEST_CASE("pages that are given back can be used again at once, and their neighbours keep their bytes") {
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    const os::segment s = make(kind);
    std::memset(s.data(), 'x', bytes);
    os::segment other = os::segment::open(s.name(), tag);
    other.attach();
    if (os::punching_works()) CHECK(os::punch(other.data(), bytes / 2));
    CHECK(*at(s, bytes / 2) == 'x');
    std::memset(s.data(), 'y', bytes / 2);
    CHECK(*at(other, 0) == 'y');
    CHECK(*at(other, bytes / 2 - 1) == 'y');
  }
}

TEST_CASE("pages that are given back read as zero for everybody, and are not resident") {
  if (!os::discarded_is_zero) {
    MESSAGE("skipped: on this system they read as anything");
    return;
  }
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
    for (const char* how : {"read", "write"}) {
      CAPTURE(static_cast<int>(kind));
      CAPTURE(how);
      const os::segment s = make(kind);
      roles::arguments words = roles::words_of(s, tag);
      words.emplace_back(how);
      process other("touch forbidden", words);
      CHECK(other.wait_until_ready());
      CHECK(other.wait() != 0);
      CHECK(*at(s, bytes / 2) == 0);
    }
  }
}

TEST_CASE("a range that was forbidden before its memory was committed stays forbidden when it is committed") {
  for (const backing kind : os::segment_kinds) {
    CAPTURE(static_cast<int>(kind));
    os::segment s = os::segment::create(kind, bytes, tag);
    REQUIRE(s.commit(bytes / 2 - os::page_size(), os::page_size()));
    REQUIRE(s.commit(bytes / 2 + os::page_size(), os::page_size()));
    roles::arguments words = roles::words_of(s, tag);
    words.emplace_back("write");
    process other("touch forbidden", words);
    CHECK(other.wait_until_ready());
    REQUIRE(s.commit(0, bytes));
    CHECK(other.wait() != 0);
    CHECK(*at(s, bytes / 2) == 0);
  }
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

int main(int count, char** values) {
  int status = 0;
  if (roles::play(count, values, status)) return status;
  doctest::Context context(count, values);
  return context.run();
}
