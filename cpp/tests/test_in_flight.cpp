/// Leases of messages that can no longer be read: found in bytes, taken over, given back by the responsible process.
#include <doctest.h>

#include <cstring>
#include <string>
#include <vector>

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sharedmem/arena.hpp>
#include <sharedmem/channel.hpp>
#include <sharedmem/error.hpp>
#include <sharedmem/handle.hpp>
#include "arena_hooks.hpp"

using namespace sharedmem;

namespace {

constexpr std::uint64_t mib = std::uint64_t{1} << 20;
using bytes = std::vector<std::byte>;

bytes handle_of(const arena& a, const claim& c) {
  handle h;
  h.where = a.where();
  h.what = c;
  h.shape.itemsize = 1;
  h.dtype = "u1";
  bytes out(max_handle_bytes + h.dtype.size());
  out.resize(encode(h, out));
  return out;
}

bytes operator+(bytes a, const bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

bytes text(const char* of) {
  bytes out(std::strlen(of));
  std::memcpy(out.data(), of, out.size());
  return out;
}

}  // namespace

TEST_CASE("handles are found in the bytes of a message") {
  const auto a = arena::create(64 * mib);
  const bytes one = handle_of(*a, {1, 2, 3, 4}), other = handle_of(*a, {5, 6, 7, 8});
  bytes damaged = one;
  damaged[30] ^= std::byte{1};
  const bytes message = text("before") + one + damaged + text("between") + other + one;
  handle h;
  std::size_t at = find_handle(message, 0, h);
  CHECK(at == 6 + one.size());
  CHECK(h.what.block == 1);
  CHECK(h.what.nonce == 4);
  at = find_handle(message, at, h);
  CHECK(h.what.block == 5);
  CHECK(h.what.lease == 7);
  at = find_handle(message, at, h);
  CHECK(at == message.size());
  CHECK(find_handle(message, at, h) == 0);
  for (std::size_t cut = 0; cut < one.size(); ++cut) {
    CAPTURE(cut);
    CHECK(find_handle(std::span(one).first(cut), 0, h) == 0);
    if (cut > 0) CHECK(find_handle(std::span(one).subspan(cut), 0, h) == 0);
  }
}

TEST_CASE("the process responsible for a message whose bytes are lost gives its lease back, once") {
  const auto a = arena::create(64 * mib);
  allocation block = a->allocate(1000);
  const claim c = a->share(block.ref, true);
  CHECK(a->stands_for(c));
  CHECK(a->note_written(c, false));
  claim earlier = c;
  earlier.nonce -= 1;
  CHECK_FALSE(a->give_back_lost(earlier));
  CHECK(a->give_back_lost(c));
  CHECK_FALSE(a->give_back_lost(c));
  CHECK_FALSE(a->stands_for(c));
  CHECK_FALSE(a->note_read(c));
  CHECK(a->statistics().leases == 0);
  a->release(block.ref);
  // The block of a message that is given up after its array was dropped is free at once.
  block = a->allocate(1000);
  const claim last = a->share(block.ref, true);
  a->release(block.ref);
  CHECK(a->statistics().shared_blocks == 1);
  CHECK(a->give_back_lost(last));
  CHECK(a->statistics().shared_blocks == 0);
}

TEST_CASE("a lease is in flight until its message is loaded or given up") {
  const auto a = arena::create(64 * mib);
  allocation block = a->allocate(1000);
  const claim loaded = a->share(block.ref, true);
  claim another_use = loaded;
  another_use.nonce += 1;
  CHECK(a->is_in_flight(loaded));
  CHECK_FALSE(a->is_in_flight(another_use));
  CHECK_FALSE(a->is_in_flight(a->share(block.ref, false)));
  allocation again = a->acquire(loaded);
  CHECK_FALSE(a->is_in_flight(loaded));
  a->release(again.ref);
  const claim given_up = a->share(block.ref, true);
  CHECK(a->is_in_flight(given_up));
  CHECK_FALSE(a->is_in_flight(loaded));
  a->give_back(given_up);
  CHECK_FALSE(a->is_in_flight(given_up));
  a->release(block.ref);
}

TEST_CASE("a message that may have copies is kept until one is loaded") {
  const auto a = arena::create(64 * mib);
  allocation block = a->allocate(1000);
  const std::uint64_t size = block.bytes;
  const claim c = a->share(block.ref, true);
  CHECK(a->note_written(c, false));
  CHECK_FALSE(a->note_written(c, true));
  CHECK_FALSE(a->give_back_lost(c));
  CHECK(a->statistics().bytes_in_flight == size);
  allocation loaded = a->acquire(c);
  a->release(loaded.ref);
  const claim next = a->share(block.ref, true);  // the same entry, perhaps
  CHECK(a->give_back_lost(next));
  CHECK(a->statistics().leases == 0);
  a->release(block.ref);
}

TEST_CASE("a message that another process has read is that process's") {
  const auto a = arena::create(64 * mib);
  allocation block = a->allocate(1000);
  const claim c = a->share(block.ref, true);
  arena_hooks::prepare_fork(*a);
  const pid_t reader = ::fork();
  if (reader == 0) {
    arena_hooks::after_fork_in_child(*a);
    ::_exit(a->note_read(c) && a->stands_for(c) &&
                    !a->note_read({c.block, c.generation, c.lease, c.nonce + 1})
                ? 0
                : 1);
  }
  arena_hooks::after_fork_in_parent(*a);
  int status = -1;
  ::waitpid(reader, &status, 0);
  CHECK(status == 0);
  CHECK_FALSE(a->stands_for(c));
  CHECK_FALSE(a->give_back_lost(c));
  (void)a->collect(false);
  CHECK(a->statistics().leases == 1);
  (void)a->collect(true);
  CHECK(a->statistics().leases == 0);
  a->release(block.ref);
}

TEST_CASE("ends of connections say how they are read") {
  const auto a = arena::create(64 * mib);
  const std::uint64_t end = a->new_ends();
  CHECK(a->new_ends() == end + 2);
  a->read_elsewhere(end + 1);
  CHECK(a->is_read_elsewhere(end + 1));
  CHECK_FALSE(a->is_read_elsewhere(end));
  CHECK_FALSE(a->is_read_elsewhere(end + 2));
}

TEST_CASE("messages of a process keep no more than it allows") {
  const auto a = arena::create(256 * mib);
  a->limit_in_flight(20 * mib);
  allocation large = a->allocate(64 * mib, 64, pages::lazy), small = a->allocate(100);
  const claim first = a->share(large.ref, true);  // nothing is in flight yet
  CHECK_THROWS_AS((void)a->share(small.ref, true), no_memory);
  (void)a->share(small.ref, false);
  a->give_back(first);
  std::vector<claim> all;
  for (int i = 0; i < 100; ++i) all.push_back(a->share(small.ref, true));
  for (const claim& c : all) a->give_back(c);
  a->release(large.ref);
  a->release(small.ref);
}

TEST_CASE("the unread bytes of a pipe without readers can be read") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  channel to(ends[1]);
  CHECK(to.is_pipe());
  CHECK(to.drained());
  const bytes message = text("some bytes that nobody reads");
  REQUIRE(::write(ends[1], message.data(), message.size()) > 0);
  char read[5];
  REQUIRE(::read(ends[0], read, sizeof read) == 5);
  CHECK_FALSE(to.abandoned());
  CHECK_FALSE(to.drained());
  CHECK(to.unread().empty());
  const int another = ::dup(ends[0]);
  ::close(ends[0]);
  CHECK_FALSE(to.abandoned());
  ::close(another);
  CHECK(to.abandoned());
  for (int i = 0; i < 2; ++i) CHECK(to.unread() == bytes(message.begin() + 5, message.end()));
  ::close(ends[1]);
  CHECK_FALSE(to.abandoned());
}

TEST_CASE("a pipe that is closed by its writer can be looked at") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  channel to(ends[1]);
  REQUIRE(::write(ends[1], "x", 1) == 1);
  REQUIRE(to.keep());
  ::close(ends[1]);
  CHECK_FALSE(to.abandoned());
  char read[2];
  CHECK(::read(ends[0], read, sizeof read) == 1);
  CHECK(::read(ends[0], read, sizeof read) == 0);  // its end, as usual
  ::close(ends[0]);
  CHECK(to.abandoned());
  CHECK(to.unread().empty());
}

TEST_CASE("a socket whose other end is closed has no reader") {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  channel to(ends[0]);
  CHECK(to.is_socket());
  REQUIRE(::write(ends[0], "x", 1) == 1);
  CHECK_FALSE(to.drained());
  CHECK_FALSE(to.abandoned());
  CHECK_FALSE(to.keep());
  ::close(ends[1]);
  CHECK(to.abandoned());
  CHECK(to.unread().empty());
  ::close(ends[0]);
}

TEST_CASE("a descriptor that is neither pipe nor socket is not looked at") {
  const channel none(-1), file(0x7fff);
  CHECK_FALSE(none.abandoned());
  CHECK_FALSE(file.abandoned());
  CHECK_FALSE(file.drained());
}
