#include <doctest.h>

#include <signal.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include <sharedmem/arena.hpp>
#include <sharedmem/error.hpp>
#include <sharedmem/queue.hpp>

#include "arena_tools.hpp"
#include "queue_layout.hpp"
#include "queue_tools.hpp"

using namespace sharedmem;
using namespace queue_tools;

namespace {

constexpr std::size_t page = 4096;

/// The bytes of a message; who reads them for the first time changes the length of the queue's ring. At most one at a time.
class trap {
 public:
  explicit trap(queue& q) {
    now_ = this;
    target_ = &layout_of(q);
    struct sigaction sprung{};
    sprung.sa_handler = [](int) {
      ::mprotect(now_->bytes_, page, PROT_READ | PROT_WRITE);
      now_->target_->states[now_->target_->valid].ring_bytes = 8;
    };
    ::sigaction(SIGSEGV, &sprung, &before_);
    ::mprotect(bytes_, page, PROT_NONE);
  }
  trap(const trap&) = delete;
  trap& operator=(const trap&) = delete;
  ~trap() {
    ::sigaction(SIGSEGV, &before_, nullptr);
    ::munmap(bytes_, page);
  }
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(bytes_), 16}; }

 private:
  static inline trap* now_ = nullptr;
  void* bytes_ = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  queue::layout* target_ = nullptr;
  struct sigaction before_{};
};

/// The size of the second of three equal records in the queue, made impossible for a scope.
class corrupted_record {
 public:
  explicit corrupted_record(queue& q) : home_{q.home()} {
    const queue::state& now = layout_of(q).now();
    ring_ = home_->acquire({now.ring.block, now.ring.generation, no_lease, 0});
    size_ = reinterpret_cast<std::uint32_t*>(ring_.data + (now.tail - now.head) / 3);
    right_ = std::exchange(*size_, 8);
  }
  corrupted_record(const corrupted_record&) = delete;
  corrupted_record& operator=(const corrupted_record&) = delete;
  ~corrupted_record() {
    *size_ = right_;
    home_->release(ring_.ref);
  }

 private:
  arena* home_;
  allocation ring_;
  std::uint32_t* size_ = nullptr;
  std::uint32_t right_ = 0;
};

queue_message of(std::span<const std::byte> bytes) { return {{}, bytes, false, bytes.size(), 0}; }

}  // namespace

TEST_CASE("a stray write while messages are put stops none of them, and the bell is rung") {
  auto a = arena::create(tiny);
  {
    auto q = made_in(*a);
    const auto first = text(1, 20), last = text(3, 20);
    const trap second(*q);
    const queue_message all[] = {of(first), of(second.bytes()), of(last)};
    const std::uint32_t before = layout_of(*q).messages.word;
    std::size_t count = 0;
    std::uint32_t seen = 0;
    CHECK(q->try_put(all, count, seen) == outcome::done);
    CHECK(count == 3);
    CHECK(layout_of(*q).messages.word != before);
    queue_taken taken;
    CHECK(get(*q, taken, 4) == outcome::done);
    CHECK(taken.entries.size() == 3);
  }
  nothing_left(*a);
}

TEST_CASE("messages before a corrupted one are taken, and the bell is rung for the room that they leave") {
  auto a = arena::create(tiny);
  {
    auto q = made_in(*a, 4);
    for (std::uint64_t i = 0; i < 3; ++i) REQUIRE(put(*q, text(i, 24), array_for(*a, i)) == outcome::done);
    queue::layout& at = layout_of(*q);
    const std::uint32_t before = at.room.word;
    std::optional<corrupted_record> second(*q);
    queue_taken taken;
    CHECK(get(*q, taken, 3) == outcome::done);
    REQUIRE(taken.entries.size() == 1);
    CHECK(taken.entries[0].claims == 1);
    a->give_back(taken.claims[0]);
    CHECK(at.room.word == before + 1);
    // The other two stay, and the next call says why.
    for (int i = 0; i < 2; ++i) CHECK_THROWS_AS((void)get(*q, taken, 3), corrupted);
    CHECK(taken.entries.size() == 1);
    CHECK(at.room.word == before + 1);
    queue::counts now;
    CHECK(q->count(now) == outcome::done);
    CHECK(now.waiting == 2);
    second.reset();
    CHECK(next_number(*q) == 1);
    CHECK(next_number(*q) == 2);
  }
  nothing_left(*a);
}

TEST_CASE("the bell is rung for messages that were put before there was no room") {
  auto a = arena::create(tiny);
  {
    auto bounded = made_in(*a, 2), unbounded = made_in(*a);
    const auto bytes = text(1, 2000);
    const std::vector<queue_message> all(20, of(bytes));
    for (queue* const q : {bounded.get(), unbounded.get()}) {
      const std::uint32_t before = layout_of(*q).messages.word;
      std::size_t count = 0;
      std::uint32_t seen = 0;
      CHECK(q->try_put(all, count, seen) == (q->most() != 0 ? outcome::nothing : outcome::no_ring));
      CHECK(count > 0);
      CHECK(count < all.size());
      CHECK(layout_of(*q).messages.word == before + 1);
      CHECK(q->try_put({all.data(), 1}, count, seen) != outcome::done);
      CHECK(count == 0);
      CHECK(layout_of(*q).messages.word == before + 1);
    }
  }
  nothing_left(*a);
}

TEST_CASE("a new ring is given back at once if the messages cannot be copied into it") {
  auto a = arena::create(tiny);
  {
    auto q = made_in(*a);
    for (std::uint64_t i = 0; i < 3; ++i) REQUIRE(put(*q, text(i, 24), array_for(*a, i)) == outcome::done);
    const arena_statistics before = a->statistics();
    {
      const corrupted_record second(*q);
      CHECK_THROWS_AS((void)q->set_ring(100), corrupted);
      const arena_statistics after = a->statistics();
      CHECK(after.leases == before.leases);
      CHECK(after.live_blocks == before.live_blocks);
    }
    for (std::int64_t i = 0; i < 3; ++i) CHECK(next_number(*q) == i);
  }
  nothing_left(*a);
}

TEST_CASE("what cannot be repaired is an error for everybody, and the lock is free") {
  auto a = arena::create(tiny);
  {
    auto q = made_in(*a);
    queue::layout& at = layout_of(*q);
    at.from = at.now().tail;
    at.to = at.from + 8;  // no record is so small
    at.doing = queue::layout::work::putting;
    queue::counts found;
    CHECK_THROWS_AS((void)q->count(found), corrupted);
    std::thread([&] { CHECK_THROWS_AS((void)q->count(found), corrupted); }).join();
    at.doing = queue::layout::work::nothing;
    CHECK(q->count(found) == outcome::done);
  }
  nothing_left(*a);
}
