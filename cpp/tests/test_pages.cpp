#include <doctest.h>

#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "os/memory.hpp"
#include "os/pages.hpp"
#include "segment/mapping.hpp"

#include "child.hpp"

using namespace sharedmem;

// The operations of a mapping on ranges of its pages.

namespace {

constexpr std::size_t mebibyte = std::size_t{1} << 20;
constexpr std::uint64_t tag = 0xabcd'ef01'2345'6789;

bool accept(const void*, std::size_t, void*) { return true; }

mapping make(backing kind, std::size_t bytes = mebibyte) {
  mapping made = mapping::create(kind, bytes, tag);
  made.data()[0] = std::byte{'S'};
  return made;
}

bool sysv_exists(int id) {
  shmid_ds record{};
  return ::shmctl(id, IPC_STAT, &record) == 0;
}

}  // namespace

TEST_CASE("discarded pages read as zero in every mapping and are no longer resident") {
  for (const backing kind : {backing::sysv, backing::memfd}) {
    CAPTURE(static_cast<int>(kind));
    mapping first = make(kind, 8 * mebibyte);
    const mapping second = mapping::attach(first.name(), first.size(), tag, accept, nullptr);
    std::memset(first.data(), 1, first.size());
    CHECK(first.resident() == first.size());
    CHECK(first.discard(2 * mebibyte, 4 * mebibyte));
    CHECK(first.resident() == 4 * mebibyte);
    CHECK(second.data()[2 * mebibyte] == std::byte{0});
    CHECK(second.data()[6 * mebibyte - 1] == std::byte{0});
    CHECK(second.data()[2 * mebibyte - 1] == std::byte{1});
    CHECK(second.data()[6 * mebibyte] == std::byte{1});
  }
}

TEST_CASE("discard refuses what is not whole pages of the segment, and what is locked") {
  mapping made = make(backing::sysv);
  CHECK_FALSE(made.discard(0, 100));
  CHECK_FALSE(made.discard(100, os::page_size()));
  CHECK_FALSE(made.discard(0, made.size() + os::page_size()));
  CHECK_FALSE(made.discard(made.size(), os::page_size()));
  CHECK_FALSE(made.discard(os::page_size(), SIZE_MAX - os::page_size() + 1));
  CHECK_FALSE(made.discard(0, 0));
  REQUIRE(::syscall(SYS_mlock, made.data(), os::page_size()) == 0);  // sanitizers make mlock do nothing
  CHECK_FALSE(made.discard(0, os::page_size()));
  CHECK(made.data()[0] == std::byte{'S'});
}

TEST_CASE("a guarded range cannot be written, the rest can") {
  mapping made = make(backing::sysv, 4 * os::page_size());
  made.guard(os::page_size(), os::page_size());
  made.data()[0] = made.data()[2 * os::page_size()] = std::byte{1};
  child writer{[&] {
    ::signal(SIGSEGV, SIG_DFL);  // a sanitizer would report it
    reinterpret_cast<volatile char*>(made.data())[os::page_size()] = 1;
    return 0;
  }};
  CHECK(writer.wait() == -SIGSEGV);
  const int id = made.name().id;
  made = mapping{};
  CHECK_FALSE(sysv_exists(id));  // all its parts were detached
}

TEST_CASE("populate makes pages present and changes no byte") {
  for (const backing kind : {backing::sysv, backing::memfd}) {
    for (const unsigned threads : {1U, 3U}) {
      CAPTURE(static_cast<int>(kind));
      CAPTURE(threads);
      mapping made = make(kind, 80 * mebibyte);
      made.prefer_huge(0, made.size());
      made.data()[70 * mebibyte + 17] = std::byte{42};
      const std::size_t offset = 3 * mebibyte + 1;
      const std::size_t bytes = 75 * mebibyte;
      made.populate(offset, bytes, threads);
      CHECK(made.resident() >= bytes);
      CHECK(made.resident() <= bytes + 2 * huge_page_size + os::page_size());
      CHECK(made.data()[70 * mebibyte + 17] == std::byte{42});
      CHECK(std::all_of(made.data() + offset, made.data() + 70 * mebibyte,
                        [](std::byte value) { return value == std::byte{0}; }));
    }
  }
}

TEST_CASE("populate of a few bytes, of the end and of nothing") {
  mapping made = make(backing::sysv, 3 * huge_page_size + os::page_size());
  made.populate(0, 0);
  made.populate(made.size(), 1);
  made.populate(1, made.size());
  CHECK(made.resident() == os::page_size());
  made.populate(made.size() - 1, 1);
  CHECK(made.resident() == 2 * os::page_size());
  made.populate(0, made.size(), 0);
  CHECK(made.resident() == made.size());
}
