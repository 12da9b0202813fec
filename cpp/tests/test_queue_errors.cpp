#include <doctest.h>

#include <signal.h>
#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
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

queue::layout& layout_of(queue& q) { return *reinterpret_cast<queue::layout*>(q.block().data); }

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
    const std::size_t record = (at.now().tail - at.now().head) / 3;
    allocation ring = a->acquire({at.now().ring.block, at.now().ring.generation, no_lease, 0});
    auto* const size = reinterpret_cast<std::uint32_t*>(ring.data + record);
    const std::uint32_t right = *size;
    *size = 8;
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
    *size = right;
    a->release(ring.ref);
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
