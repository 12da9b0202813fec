/// Files as shared memory.
#include <doctest.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sharedmem/file_view.hpp>

#include "child.hpp"

using namespace sharedmem;

namespace {

/// A temporary folder, removed at the end of the scope.
class folder {
 public:
  folder() {
    if (::mkdtemp(text_) == nullptr) std::terminate();
  }
  ~folder() {
    for (const char* name : {"/a", "/b", "/pipe"}) ::unlink((text_ + std::string(name)).c_str());
    ::rmdir(text_);
  }
  folder(const folder&) = delete;
  folder& operator=(const folder&) = delete;
  [[nodiscard]] std::string operator/(const char* name) const { return std::string(text_) + "/" + name; }

 private:
  char text_[32] = "/tmp/sharedmem-test-XXXXXX";
};

void write(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

int mappings(const std::string& path) {
  std::ifstream maps("/proc/self/maps");
  int found = 0;
  for (std::string line; std::getline(maps, line);) found += line.ends_with(path) ? 1 : 0;
  return found;
}

int code_of(auto&& work) {
  try {
    work();
  } catch (const error& failure) {
    return failure.code().value();
  }
  return 0;
}

/// The signal that ends a child which stores a byte at `p`; 0: it may.
int store(const std::byte* p) {
  child doomed([p] {
    ::signal(SIGSEGV, SIG_DFL);
    const rlimit none{0, 0};
    ::setrlimit(RLIMIT_CORE, &none);
    *const_cast<volatile std::byte*>(p) = std::byte{'!'};
    return 0;
  });
  return -doomed.wait();
}

}  // namespace

TEST_CASE("a file is mapped once per mode, and unmapped with its last reference") {
  const folder here;
  const std::string path = here / "a";
  write(path, "hello world");
  CHECK_FALSE(file_view());
  {
    const file_view a = file_view::open(path, file_mode::read);
    const file_view b = file_view::open(path, file_mode::read);
    const file_view c = file_view::open(path, file_mode::read_write, a.identity(), 11);
    CHECK(a.data() == b.data());
    CHECK(c.data() != a.data());
    CHECK(mappings(path) == 2);
    CHECK(a.bytes() == 11);
    CHECK(a.path() == path);
    CHECK(c.identity() == a.identity());
    CHECK(std::memcmp(c.data(), "hello world", 11) == 0);
    CHECK(store(a.data()) == SIGSEGV);
    CHECK(::mprotect(a.data(), 4096, PROT_READ | PROT_WRITE) == -1);
    CHECK(errno == EACCES);
    CHECK(store(c.data()) == 0);
    CHECK(a.data()[0] == std::byte{'!'});
    CHECK(read(path) == "!ello world");

    CHECK(file_view::at(a.data() + 10).data() == a.data());
    CHECK_FALSE(file_view::at(a.data() + 11));
    CHECK_FALSE(file_view::at(a.data() - 1));
    CHECK(file_view::holds(c.data()));
    CHECK_FALSE(file_view::holds(&path));
    CHECK_FALSE(file_view::holds(nullptr));
  }
  CHECK(mappings(path) == 0);
  const file_view again = file_view::open(path, file_mode::read);
  CHECK(again.data()[1] == std::byte{'e'});
}

TEST_CASE("opening an expected file returns that file, or an error that says what has happened to it") {
  const folder here;
  const std::string path = here / "a";
  write(path, "0123456789");
  for (const bool still_open : {false, true}) {
    CAPTURE(still_open);
    file_view a = file_view::open(path, file_mode::read);
    const file_identity which = a.identity();
    if (!still_open) a = file_view();
    CHECK(file_view::open(path, file_mode::read, which, 10).bytes() == 10);
    CHECK_THROWS_AS(file_view::open(path, file_mode::read, which, 11), std::invalid_argument);
    for (file_identity other : {file_identity{which.device + 1, which.inode, which.birth},
                                file_identity{which.device, which.inode + 1, which.birth},
                                file_identity{which.device, which.inode, which.birth + 1}})
      CHECK_THROWS_AS(file_view::open(path, file_mode::read, other, 10), stale_handle);
    REQUIRE(::rename(path.c_str(), (here / "b").c_str()) == 0);
    CHECK(code_of([&] { file_view::open(path, file_mode::read, which, 10); }) == ENOENT);
    write(path, "0123456789");
    CHECK_THROWS_AS(file_view::open(path, file_mode::read, which, 10), stale_handle);
    REQUIRE(::rename((here / "b").c_str(), path.c_str()) == 0);
    CHECK(file_view::open(path, file_mode::read, which, 10).bytes() == 10);
  }
}

TEST_CASE(
    "a new file replaces the old one and reserves its blocks; processes that have the old one keep it") {
  const folder here;
  const std::string path = here / "a";
  write(path, "old");
  const file_view old = file_view::open(path, file_mode::read_write);
  const std::byte head[] = {std::byte{'n'}, std::byte{'e'}, std::byte{'w'}};
  const file_view made = file_view::create(path, 100'000, head);
  CHECK(made.identity() != old.identity());
  CHECK(made.bytes() == 100'000);
  CHECK(std::memcmp(made.data(), "new", 4) == 0);
  CHECK(std::memcmp(old.data(), "old", 3) == 0);
  struct stat record{};
  REQUIRE(::stat(path.c_str(), &record) == 0);
  CHECK(record.st_blocks * 512 >= 100'000);
  made.data()[99'999] = std::byte{'!'};
  made.flush(made.data() + 99'999, 1);
  made.flush(made.data(), 100'000);
  CHECK(read(path).back() == '!');
  CHECK_THROWS_AS(made.flush(made.data() + 1, 100'000), std::invalid_argument);
  CHECK_THROWS_AS(made.flush(old.data(), 1), std::invalid_argument);
  CHECK_THROWS_AS(file_view::create(path, 2, head), std::invalid_argument);
}

TEST_CASE("what cannot be made leaves nothing") {
  const folder here;
  const std::string path = here / "a";
  CHECK(code_of([&] { file_view::create(path, std::uint64_t{1} << 63); }) == EFBIG);
  CHECK(code_of([&] { file_view::create(here / "none/a", 10); }) == ENOENT);
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit little{1000, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &little) == 0);
  CHECK(code_of([&] { file_view::create(path, 2000); }) == EFBIG);
  ::setrlimit(RLIMIT_FSIZE, &before);
  CHECK(::access(path.c_str(), F_OK) != 0);
}

TEST_CASE("an empty file has no bytes, and its references are good for nothing else") {
  const folder here;
  write(here / "a", "");
  const file_view a = file_view::open(here / "a", file_mode::read);
  CHECK(static_cast<bool>(a));
  CHECK(a.bytes() == 0);
  CHECK(a.data() == nullptr);
  a.flush(nullptr, 0);
  CHECK_FALSE(file_view::holds(nullptr));
}

TEST_CASE("only regular files are mapped") {
  const folder here;
  REQUIRE(::mkfifo((here / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_AS(file_view::open(here / "pipe", file_mode::read), std::invalid_argument);
  CHECK_THROWS_AS(file_view::create(here / "pipe", 10), std::invalid_argument);
  CHECK_THROWS_AS(file_view::open("/dev/zero", file_mode::read_write), std::invalid_argument);
  CHECK(code_of([&] { file_view::open("/tmp", file_mode::read); }) == EISDIR);
  CHECK(code_of([&] { file_view::open(here / "a", file_mode::read); }) == ENOENT);
}

TEST_CASE("a file of another length is mapped again; a mapping that is large enough for a handle is reused") {
  const folder here;
  const std::string path = here / "a";
  write(path, std::string(5000, 'x'));
  const file_view small = file_view::open(path, file_mode::read);
  REQUIRE(::truncate(path.c_str(), 50'000) == 0);
  const file_view large = file_view::open(path, file_mode::read);
  CHECK(large.bytes() == 50'000);
  CHECK(small.bytes() == 5000);
  CHECK(file_view::at(small.data()).data() == small.data());
  CHECK(file_view::at(large.data()).data() == large.data());
  REQUIRE(::truncate(path.c_str(), 6000) == 0);
  CHECK(file_view::open(path, file_mode::read).bytes() == 6000);
  CHECK(file_view::open(path, file_mode::read, large.identity(), 6000).bytes() >= 6000);
}

TEST_CASE("a file is mapped again under another path, since its handles contain the path") {
  const folder here;
  const std::string first = here / "a", second = here / "b";
  write(first, std::string(5000, 'x'));
  const file_view by_first = file_view::open(first, file_mode::read);
  CHECK(file_view::open(first, file_mode::read).data() == by_first.data());
  REQUIRE(::rename(first.c_str(), second.c_str()) == 0);
  CHECK(file_view::open(second, file_mode::read).path() == second);
}

TEST_CASE("threads open, find and drop files at once") {
  const folder here;
  write(here / "a", std::string(5000, 'a'));
  write(here / "b", std::string(5000, 'b'));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      const char* name = t % 2 == 0 ? "a" : "b";
      for (int i = 0; i < 500; ++i) {
        const file_view mine = file_view::open(here / name, file_mode::read);
        const file_view found = file_view::at(mine.data() + 4999);
        if (found.data() != mine.data() || static_cast<char>(found.data()[4999]) != *name) std::terminate();
      }
    });
  for (std::thread& each : threads) each.join();
  CHECK(mappings(here / "a") == 0);
  CHECK(mappings(here / "b") == 0);
}

TEST_CASE("a forked child has its parent's references, and drops them for itself") {
  const folder here;
  write(here / "a", "hello");
  file_view a = file_view::open(here / "a", file_mode::read_write);
  child other([&] {
    a.data()[0] = std::byte{'j'};
    const std::byte* at = a.data();
    a = file_view();
    return file_view::holds(at) || mappings(here / "a") != 0 ? 1 : 0;
  });
  CHECK(other.wait() == 0);
  CHECK(a.data()[0] == std::byte{'j'});
  CHECK(file_view::holds(a.data()));
}
