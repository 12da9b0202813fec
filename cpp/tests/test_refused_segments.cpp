/// Segments that are not attached, and what the system refuses.
#include <doctest.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <string>

#include "os/pages.hpp"

#include "child.hpp"
#include "mapping_tools.hpp"
#include "needs.hpp"

namespace {

constexpr uid_t somebody = 65534;

}  // namespace

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
  SUBCASE("a descriptor of something else, or none") {
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
