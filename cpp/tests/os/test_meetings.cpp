/// Names, queues and files among processes of which none was forked: what every port must do, over the public interface.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <span>
#include <string>
#include <system_error>

#include <sharedmem/error.hpp>
#include <sharedmem/file_view.hpp>
#include <sharedmem/home.hpp>
#include <sharedmem/names.hpp>
#include <sharedmem/queue.hpp>

#include "os/fork_handlers.hpp"
#include "os/identity.hpp"
#include "process_tools.hpp"

namespace {

const roles::declared binds("bind", [](const roles::arguments& words) {
  name_ticket mine;
  if (!claim_name(words.at(0), mine)) return 1;
  const placing there(&name_arena());
  allocation block = allocate(1000);
  fill(block, 6);
  bind_name(mine, block.ref, "a description");
  roles::say_ready_and_wait();
  release(block.ref);
  return 0;
});

const roles::declared puts("put", [](const roles::arguments& words) {
  const auto a = arena_from(words);
  claim c;
  if (!roles::read_input(&c, sizeof c)) return 1;
  queue q;
  allocation block = a->acquire(c);
  q.open(block);
  for (std::uint64_t i = 0; i < 100; ++i) {
    std::byte bytes[sizeof i];
    std::memcpy(bytes, &i, sizeof i);
    const queue_message m{{}, bytes, false, sizeof bytes, queue_checksum(bytes)};
    std::size_t count = 0;
    std::uint32_t seen = 0;
    for (auto how = queue::outcome::busy; how != queue::outcome::done;) {
      how = q.try_put({&m, 1}, count, seen);
      if (how == queue::outcome::no_ring) (void)q.set_ring(queue::bytes_in_ring(m));
      if (how == queue::outcome::busy) q.wait_for_lock(std::chrono::seconds{1});
    }
  }
  roles::say_ready_and_wait();
  return 0;
});

const roles::declared writes_file("write file", [](const roles::arguments& words) {
  const file_view file = file_view::open(words.at(0), file_mode::read_write);
  file.data()[1] = std::byte{7};
  return file.bytes() == 100'000 ? 0 : 1;
});

const roles::declared writes_read_only("write read-only file", [](const roles::arguments& words) {
  const file_view file = file_view::open(words.at(0), file_mode::read);
  if (file.data()[0] != std::byte{1}) return 0;
  roles::say_ready_and_wait();
  *static_cast<volatile std::byte*>(file.data()) = std::byte{9};
  return 0;
});

/// A folder of this process's own, which goes with all that is in it.
struct own_folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("sharedmem-test-" + std::to_string(os::pid()));

  own_folder() { std::filesystem::create_directory(path); }
  own_folder(const own_folder&) = delete;
  own_folder& operator=(const own_folder&) = delete;
  ~own_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  [[nodiscard]] std::string file(const char* name) const { return (path / name).string(); }
  [[nodiscard]] std::ptrdiff_t entries() const {
    return std::distance(std::filesystem::directory_iterator(path), {});
  }
};

template <class Function>
int code_of(Function call) {
  try {
    call();
    return 0;
  } catch (const error& refused) {
    return refused.code().value();
  }
}

}  // namespace

TEST_CASE("a name is found by another process, and goes with its block") {
  set_environment("SHAREDMEM_NAMESPACE", "test of names " + std::to_string(os::pid()));
  set_environment("SHAREDMEM_ARENA_SIZE", "64MiB");
  CHECK(find_name("prices").what == name_status::none);
  {
    process other("bind", {"prices"});
    REQUIRE(other.wait_until_ready());
    name_found found = find_name("prices");
    REQUIRE(found.what == name_status::ready);
    CHECK(found.text == "a description");
    CHECK(found.pid == other.pid());
    CHECK(filled(found.block, 6));
    name_ticket again;
    CHECK_FALSE(claim_name("prices", again));
    other.kill();
    name_found once_more = find_name("prices");
    CHECK(once_more.what == name_status::ready);
    CHECK(filled(once_more.block, 6));
    release(found.block.ref);
    release(once_more.block.ref);
  }
  (void)name_arena().collect(true);
  CHECK(find_name("prices").what == name_status::none);
}

TEST_CASE("a queue between processes that inherit nothing keeps its messages when the sender is killed") {
  const auto a = arena::create(tiny);
  queue q;
  allocation block = a->allocate(queue::block_bytes);
  q.create(block, 0);
  {
    process other("put", words_of(*a));
    const claim c = a->share(block.ref, true);
    REQUIRE(other.write(&c, sizeof c));
    REQUIRE(other.wait_until_ready());
    other.kill();
  }
  for (std::uint64_t i = 0; i < 100; ++i) {
    queue_taken taken;
    std::uint32_t seen = 0;
    auto how = q.try_get(1, taken, seen);
    while (how == queue::outcome::busy) {
      q.wait_for_lock(std::chrono::seconds{1});
      how = q.try_get(1, taken, seen);
    }
    REQUIRE(how == queue::outcome::done);
    std::uint64_t got = 0;
    std::memcpy(&got, taken.bytes.data() + taken.entries.at(0).bytes_at, sizeof got);
    CHECK(got == i);
  }
}

TEST_CASE("a file is shared memory of all that map it, and replaced whole") {
  const std::string path = std::string(std::getenv("TEMP") != nullptr ? std::getenv("TEMP") : "/tmp") +
                           "/sharedmem-test-" + std::to_string(os::pid());
  {
    const std::byte head[] = {std::byte{1}, std::byte{2}};
    const file_view file = file_view::create(path, 100'000, head);
    CHECK(file.data()[0] == std::byte{1});
    process other("write file", {path});
    CHECK(other.wait() == 0);
    CHECK(file.data()[1] == std::byte{7});
    CHECK(file.data()[99'999] == std::byte{0});
    file.flush(file.data(), 100'000);
    CHECK(file_view::open(path, file_mode::read).identity() == file.identity());
  }
  CHECK_THROWS_AS((void)file_view::open(path + "/none", file_mode::read), error);
  CHECK(std::remove(path.c_str()) == 0);
}

TEST_CASE("a new file takes the place of an old one, in which another program may still read") {
  const own_folder folder;
  const std::string path = folder.file("data");
  const std::byte head[] = {std::byte{1}, std::byte{2}};
  {
    const file_view old = file_view::create(path, 50'000, head);
  }
  const file_view file = file_view::create(path, 100'000, std::span(head).last(1));
  CHECK(file.bytes() == 100'000);
  CHECK(file.data()[0] == std::byte{2});
  CHECK(file_view::open(path, file_mode::read).bytes() == 100'000);
  CHECK(folder.entries() == 1);
}

TEST_CASE("a file that cannot be made leaves nothing, and the old one stays") {
  const own_folder folder;
  const std::string path = folder.file("data");
  const std::byte head[] = {std::byte{1}};
  {
    const file_view old = file_view::create(path, 1000, head);
  }
  for (const std::uint64_t bytes : {std::uint64_t{1} << 62, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    CAPTURE(bytes);
    CHECK_THROWS_AS((void)file_view::create(path, bytes), error);
    CHECK(folder.entries() == 1);
  }
  CHECK(file_view::open(path, file_mode::read).data()[0] == std::byte{1});
  CHECK(code_of([&] { (void)file_view::create(folder.path.string(), 10); }) == EISDIR);
  CHECK(code_of([&] { (void)file_view::create(folder.file("none/data"), 10); }) == ENOENT);
  CHECK(folder.entries() == 1);
}

TEST_CASE("a folder and a missing file cannot be opened, and the error tells which it is") {
  const own_folder folder;
  for (const file_mode mode : {file_mode::read, file_mode::read_write}) {
    CHECK(code_of([&] { (void)file_view::open(folder.path.string(), mode); }) == EISDIR);
    CHECK(code_of([&] { (void)file_view::open(folder.file("none"), mode); }) == ENOENT);
  }
}

TEST_CASE("a store into a file that is mapped for reading ends the process, and the file stays as it was") {
  const own_folder folder;
  const std::string path = folder.file("data");
  const std::byte head[] = {std::byte{1}};
  const file_view file = file_view::create(path, 10'000, head);
  process other("write read-only file", {path});
  CHECK(other.wait_until_ready());
  CHECK(other.wait() != 0);
  CHECK(file.data()[0] == std::byte{1});
}

int main(int count, char** values) {
  int status = 0;
  if (roles::play(count, values, status)) return status;
  doctest::Context context(count, values);
  return context.run();
}
