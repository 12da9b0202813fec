#include <doctest.h>

#include <sys/shm.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "os/pages.hpp"

#include "child.hpp"
#include "mapping_tools.hpp"

namespace {

bool sysv_exists(int id) {
  shmid_ds record{};
  return ::shmctl(id, IPC_STAT, &record) == 0;
}

}  // namespace

TEST_CASE("a default-made mapping is empty and its operations do nothing") {
  mapping none;
  CHECK_FALSE(none);
  CHECK(none.data() == nullptr);
  CHECK(none.size() == 0);
  CHECK(none.name() == segment_name{});
  CHECK(none.resident() == 0);
  CHECK_FALSE(none.discard(0, os::page_size()));
  none.guard(0, 1);
  none.prefer_huge(0, 1);
  none.populate(0, 1);
}

TEST_CASE("a new segment is aligned, zero, sparse and left out of core dumps") {
  for (const backing kind : {backing::sysv, backing::memfd}) {
    CAPTURE(static_cast<int>(kind));
    const mapping made = mapping::create(kind, 512 * mebibyte + 1, tag);
    REQUIRE(made);
    CHECK(made.size() == 512 * mebibyte + os::page_size());
    CHECK(reinterpret_cast<std::uintptr_t>(made.data()) % huge_page_size == 0);
    CHECK(made.name().kind == kind);
    CHECK(made.resident() == 0);
    CHECK(made.data()[made.size() - 1] == std::byte{0});
    CHECK(made.resident() == os::page_size());
    CHECK(smaps(made.data()).find(" dd") != std::string::npos);
  }
}

TEST_CASE("invalid arguments are refused before any system call") {
  CHECK_THROWS_AS((void)mapping::create(backing::none, 4096, tag), std::invalid_argument);
  CHECK_THROWS_AS((void)mapping::create(backing::sysv, 0, tag), std::invalid_argument);
  CHECK_THROWS_AS((void)mapping::create(backing::sysv, SIZE_MAX, tag), std::invalid_argument);
  CHECK_THROWS_AS((void)mapping::create(backing::memfd, SIZE_MAX - 2 * os::page_size(), tag),
                  std::invalid_argument);
  CHECK_THROWS_AS((void)mapping::attach({}, os::page_size(), tag, accept, nullptr), std::invalid_argument);
  CHECK_THROWS_AS((void)mapping::attach({backing::sysv, 1, 0}, 0, tag, accept, nullptr),
                  std::invalid_argument);
  CHECK_THROWS_AS((void)mapping::attach({backing::sysv, 1, 0}, 5, tag, accept, nullptr),
                  std::invalid_argument);
}

TEST_CASE("a second attach shows the same bytes, and moving keeps them") {
  for (const backing kind : {backing::sysv, backing::memfd}) {
    CAPTURE(static_cast<int>(kind));
    mapping first = make(kind);
    int looks = 0;
    mapping second = mapping::attach(first.name(), mebibyte, tag, starts_with_s, &looks);
    CHECK(looks == 2);
    CHECK(second.data() != first.data());
    CHECK(reinterpret_cast<std::uintptr_t>(second.data()) % huge_page_size == 0);
    second.data()[5] = std::byte{7};
    CHECK(first.data()[5] == std::byte{7});
    CHECK(smaps(second.data()).find(" dd") != std::string::npos);

    first = std::move(second);
    CHECK_FALSE(second);  // NOLINT: the state after a move is promised
    CHECK(first.data()[5] == std::byte{7});
    mapping third{std::move(first)};
    CHECK_FALSE(first);  // NOLINT
    CHECK(third.data()[5] == std::byte{7});
  }
}

TEST_CASE("the first look is at a read-only mapping") {
  for (const backing kind : {backing::sysv, backing::memfd}) {
    CAPTURE(static_cast<int>(kind));
    const mapping first = make(kind);
    std::string rights;
    const mapping second = mapping::attach(
        first.name(), mebibyte, tag,
        [](const void* base, std::size_t, void* context) {
          const std::string map = smaps(base);
          *static_cast<std::string*>(context) += map.substr(map.find(' ') + 1, 2) + " ";
          return true;
        },
        &rights);
    CHECK(rights == "r- rw ");
  }
}

TEST_CASE("a segment that the verifier refuses, or that has another size, is stale") {
  for (const backing kind : {backing::sysv, backing::memfd}) {
    CAPTURE(static_cast<int>(kind));
    const mapping made = mapping::create(kind, mebibyte, tag);
    CHECK_THROWS_AS((void)mapping::attach(made.name(), mebibyte, tag, starts_with_s, nullptr), stale_handle);
    CHECK_THROWS_AS((void)mapping::attach(made.name(), 2 * mebibyte, tag, accept, nullptr), stale_handle);
    CHECK_THROWS_AS((void)mapping::attach(made.name(), os::page_size(), tag, accept, nullptr), stale_handle);
  }
}

TEST_CASE("a refusal of the second look leaves nothing attached") {
  const mapping made = make(backing::sysv);
  int looks = 0;
  const auto only_once = [](const void*, std::size_t, void* context) {
    return ++*static_cast<int*>(context) < 2;
  };
  CHECK_THROWS_AS((void)mapping::attach(made.name(), mebibyte, tag, only_once, &looks), stale_handle);
  shmid_ds record{};
  REQUIRE(::shmctl(made.name().id, IPC_STAT, &record) == 0);
  CHECK(record.shm_nattch == 1);
}

TEST_CASE("a System V segment is marked at birth and goes with its last mapping") {
  int id = -1;
  {
    const mapping made = make(backing::sysv);
    id = made.name().id;
    shmid_ds record{};
    REQUIRE(::shmctl(id, IPC_STAT, &record) == 0);
    CHECK((record.shm_perm.mode & SHM_DEST) != 0);
    CHECK((record.shm_perm.mode & 0777) == 0600);
  }
  CHECK_FALSE(sysv_exists(id));
  CHECK_THROWS_AS((void)mapping::attach({backing::sysv, id, 0}, mebibyte, tag, accept, nullptr),
                  stale_handle);
  CHECK_THROWS_AS((void)mapping::attach({backing::sysv, -1, 0}, mebibyte, tag, accept, nullptr),
                  stale_handle);
}

TEST_CASE("a segment outlives its maker, and goes when its last user is killed") {
  channel names;
  for (const backing kind : {backing::sysv, backing::memfd}) {
    CAPTURE(static_cast<int>(kind));
    child maker{[&] {
      const mapping made = make(kind);
      names.put(made.name());
      sleep_for_ever();
      return 0;
    }};
    const segment_name name = names.get<segment_name>();
    {
      mapping mine = mapping::attach(name, mebibyte, tag, starts_with_s, nullptr);
      maker.kill();
      CHECK(mine.data()[0] == std::byte{'S'});
      CHECK(mapping::attach(mine.name(), mebibyte, tag, starts_with_s, nullptr));
      // A memfd is found by its tag when its maker has ended.
      CHECK(mapping::attach(name, mebibyte, tag, starts_with_s, nullptr));
    }
    CHECK_THROWS_AS((void)mapping::attach(name, mebibyte, tag, starts_with_s, nullptr), stale_handle);
  }
}

TEST_CASE("a forked child shares the bytes, and names a memfd by its own descriptor") {
  for (const backing kind : {backing::sysv, backing::memfd}) {
    CAPTURE(static_cast<int>(kind));
    mapping made = make(kind);
    child writer{[&] {
      made.data()[1] = std::byte{9};
      const mapping again = mapping::attach(made.name(), mebibyte, tag, starts_with_s, nullptr);
      made = mapping{};
      return again.data()[1] == std::byte{9} ? 0 : 1;
    }};
    CHECK(writer.wait() == 0);
    CHECK(made.data()[1] == std::byte{9});
  }
}

TEST_CASE("the looks at a segment are left out of core dumps") {
  for (const backing kind : {backing::sysv, backing::memfd}) {
    CAPTURE(static_cast<int>(kind));
    const mapping first = make(kind);
    int left_out = 0;
    const auto count = [](const void* base, std::size_t, void* context) {
      if (smaps(base).find(" dd") != std::string::npos) ++*static_cast<int*>(context);
      return true;
    };
    const mapping second = mapping::attach(first.name(), mebibyte, tag, count, &left_out);
    CHECK(left_out == 2);
  }
}
