#include <doctest.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>

#include <sharedmem/error.hpp>
#include "os/memory.hpp"
#include "os/pages.hpp"
#include "segment/mapping.hpp"

#include "child.hpp"
#include "needs.hpp"

using namespace sharedmem;

namespace {

constexpr std::size_t mebibyte = std::size_t{1} << 20;
// Of this run: a memfd is looked for by its tag in all processes.
const std::uint64_t tag = static_cast<std::uint64_t>(::getpid()) << 32 | 0x9abc'def0;
constexpr uid_t somebody = 65534;

// A verifier that counts, and accepts a segment whose first byte is 'S'.
bool starts_with_s(const void* base, std::size_t, void* context) {
  if (context != nullptr) ++*static_cast<int*>(context);
  return *static_cast<const char*>(base) == 'S';
}

bool accept(const void*, std::size_t, void*) { return true; }

mapping make(backing kind, std::size_t bytes = mebibyte, std::uint64_t its_tag = tag) {
  mapping made = mapping::create(kind, bytes, its_tag);
  made.data()[0] = std::byte{'S'};
  return made;
}

// The lines of /proc/self/smaps about the mapping that begins at `base`.
std::string smaps(const void* base) {
  char start[32];
  std::snprintf(start, sizeof start, "%zx-", reinterpret_cast<std::size_t>(base));
  std::ifstream file{"/proc/self/smaps"};
  std::string all;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    const bool heading = line.find('-') < line.find(' ');
    if (heading) inside = line.starts_with(start);
    if (inside) all += line + "\n";
  }
  return all;
}

int code_of(auto&& work) {
  try {
    work();
  } catch (const error& failure) {
    return failure.code().value();
  }
  return 0;
}

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

TEST_CASE("nonsense is refused before the system is asked") {
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
      // A memfd is found by its tag where its maker has gone.
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

TEST_CASE("a segment that does not look like ours is not attached") {
  SUBCASE("not marked for removal") {
    const int id = ::shmget(IPC_PRIVATE, mebibyte, IPC_CREAT | 0600);
    REQUIRE(id >= 0);
    CHECK_THROWS_AS((void)mapping::attach({backing::sysv, id, 0}, mebibyte, tag, accept, nullptr),
                    stale_handle);
    ::shmctl(id, IPC_RMID, nullptr);
  }
  SUBCASE("others may write to it") {
    const int id = ::shmget(IPC_PRIVATE, mebibyte, IPC_CREAT | 0666);
    void* base = ::shmat(id, nullptr, 0);
    ::shmctl(id, IPC_RMID, nullptr);
    CHECK_THROWS_AS((void)mapping::attach({backing::sysv, id, 0}, mebibyte, tag, accept, nullptr),
                    stale_handle);
    ::shmdt(base);
  }
  SUBCASE("a memfd that could shrink") {
    char name[32];
    std::snprintf(name, sizeof name, "sharedmem:%016llx", static_cast<unsigned long long>(tag));
    const int fd = ::memfd_create(name, MFD_CLOEXEC);
    REQUIRE(fd >= 0);
    CHECK(::fchmod(fd, 0600) == 0);
    CHECK(::ftruncate(fd, mebibyte) == 0);
    CHECK_THROWS_AS((void)mapping::attach({backing::memfd, fd, ::getpid()}, mebibyte, tag, accept, nullptr),
                    stale_handle);
    ::close(fd);
  }
  SUBCASE("a descriptor of something else, or of nobody") {
    const int fd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    CHECK_THROWS_AS((void)mapping::attach({backing::memfd, fd, ::getpid()}, mebibyte, tag, accept, nullptr),
                    stale_handle);
    CHECK_THROWS_AS((void)mapping::attach({backing::memfd, -1, -1}, mebibyte, tag, accept, nullptr),
                    stale_handle);
    ::close(fd);
  }
}

TEST_CASE("a memfd is recognised by its tag alone") {
  const mapping made = make(backing::memfd);
  CHECK_THROWS_AS((void)mapping::attach(made.name(), mebibyte, tag + 1, accept, nullptr), stale_handle);
  const segment_name wrong{backing::memfd, made.name().id + 500, ::getpid()};
  CHECK(mapping::attach(wrong, mebibyte, tag, starts_with_s, nullptr));
}

TEST_CASE("a descriptor number that has become a stranger's is left alone") {
  mapping made = make(backing::memfd);
  const int fd = made.name().id;
  const int stranger = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  REQUIRE(::dup2(stranger, fd) == fd);
  CHECK(made.resident() == 0);
  made = mapping{};
  CHECK(::fcntl(fd, F_GETFD) >= 0);
  ::close(fd);
  ::close(stranger);
}

TEST_CASE("the segment of another user is refused with EPERM or EACCES") {
  if (!needs_root()) return;
  channel names;
  for (const backing kind : {backing::sysv, backing::memfd}) {
    CAPTURE(static_cast<int>(kind));
    child other{[&] {
      if (::setuid(somebody) != 0) return 1;
      const mapping made = make(kind);
      names.put(made.name());
      sleep_for_ever();
      return 0;
    }};
    const segment_name name = names.get<segment_name>();
    CHECK(code_of([&] { (void)mapping::attach(name, mebibyte, tag, accept, nullptr); }) == EPERM);
  }
  const mapping made = make(backing::sysv);
  child other{[&] {
    if (::setuid(somebody) != 0) return 1;
    return code_of([&] { (void)mapping::attach(made.name(), mebibyte, tag, accept, nullptr); });
  }};
  CHECK(other.wait() == EACCES);
}

TEST_CASE("without address space creating and attaching fail with ENOMEM and leave nothing") {
  constexpr std::size_t large = std::size_t{1} << 30;
  for (const backing kind : {backing::sysv, backing::memfd}) {
    CAPTURE(static_cast<int>(kind));
    const mapping made = make(kind, large);
    child limited{[&] {
      rlimit limit{};
      ::getrlimit(RLIMIT_AS, &limit);
      std::size_t pages = 0;
      std::ifstream{"/proc/self/statm"} >> pages;
      limit.rlim_cur = pages * os::page_size() + large / 2;
      ::setrlimit(RLIMIT_AS, &limit);
      const int creating = code_of([&] { (void)mapping::create(kind, large, tag + 1); });
      const int attaching = code_of([&] { (void)mapping::attach(made.name(), large, tag, accept, nullptr); });
      return creating == ENOMEM && attaching == ENOMEM ? 0 : 1;
    }};
    CHECK(limited.wait() == 0);
  }
}

TEST_CASE("what the system refuses names the call and the bytes") {
  child limited{[] {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const rlimit none{0, limit.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &none);
    try {
      (void)mapping::create(backing::memfd, mebibyte, tag);
    } catch (const error& failure) {
      ::setrlimit(RLIMIT_NOFILE, &limit);  // sanitizers check pointers by means of a pipe
      const std::string text = failure.what();
      const bool good = failure.code().value() == EMFILE && failure.operation() == "memfd_create" &&
                        text.find("1048576 bytes") != std::string::npos;
      return good ? 0 : 1;
    }
    return 2;
  }};
  CHECK(limited.wait() == 0);
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

TEST_CASE("a segment that has changed since it was first looked at is not attached") {
  mapping made = make(backing::sysv);
  int id = made.name().id;
  const auto change = [](const void*, std::size_t, void* context) {
    ::sleep(2);  // the kernel notes changes by the second
    shmid_ds record{};
    const int changed = *static_cast<int*>(context);
    return ::shmctl(changed, IPC_STAT, &record) == 0 && ::shmctl(changed, IPC_SET, &record) == 0;
  };
  CHECK_THROWS_AS((void)mapping::attach(made.name(), mebibyte, tag, change, &id), stale_handle);
}

TEST_CASE("a segment that another user made and gave to this one is refused") {
  if (!needs_root()) return;
  channel ids;
  channel given;
  child other{[&] {
    if (::setuid(somebody) != 0) return 1;
    const int id = ::shmget(IPC_PRIVATE, mebibyte, IPC_CREAT | 0600);
    void* at = ::shmat(id, nullptr, 0);
    ids.put(id);
    (void)given.get<char>();
    return at == nullptr ? 1 : 0;
  }};
  const int id = ids.get<int>();
  shmid_ds record{};
  REQUIRE(::shmctl(id, IPC_STAT, &record) == 0);
  record.shm_perm.uid = ::geteuid();
  CHECK(::shmctl(id, IPC_SET, &record) == 0);
  void* at = ::shmat(id, nullptr, 0);  // keeps it after the mark
  ::shmctl(id, IPC_RMID, nullptr);
  CHECK(code_of([&] { (void)mapping::attach({backing::sysv, id, 0}, mebibyte, tag, accept, nullptr); }) ==
        EPERM);
  ::shmdt(at);
  given.put('g');
  CHECK(other.wait() == 0);
}
