#include <doctest.h>

#include <fcntl.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include <sharedmem/arena.hpp>

#include "arena_tools.hpp"

using namespace sharedmem;

// Many processes, or many threads, do everything at once; some processes are killed.

namespace {

/// So much that no extension is made: what a killed process sent in one may be lost with it.
constexpr std::uint64_t room = (sizeof(void*) == 8 ? 8192 : 1536) * mib;

struct message {
  claim what;
  std::uint64_t bytes = 0;
  std::uint64_t seed = 0;
};

/// Messages for any process; those that none takes stay.
class exchange {
 public:
  exchange() {
    if (::pipe2(ends_, O_NONBLOCK) != 0) std::terminate();
  }
  exchange(const exchange&) = delete;
  exchange& operator=(const exchange&) = delete;
  ~exchange() {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  bool put(const message& m) { return ::write(ends_[1], &m, sizeof m) == sizeof m; }
  bool get(message& m) { return ::read(ends_[0], &m, sizeof m) == sizeof m; }

 private:
  int ends_[2];
};

std::uint64_t any_size(std::mt19937_64& random) {
  const std::uint64_t kind = random() % 100;
  return kind < 77 ? 1 + random() % 2000 : kind < 97 ? 1 + random() % 100000 : 1 + random() % (5 * mib);
}

/// Allocates, sends, receives and drops for `rounds` rounds; the number of blocks found broken.
int work(arena& a, exchange& mail, std::uint64_t seed, int rounds) {
  struct held {
    allocation block;
    std::uint64_t bytes, seed;
  };
  std::mt19937_64 random(seed);
  std::vector<held> mine;
  int broken = 0;
  for (int i = 0; i < rounds; ++i) {
    const std::uint64_t what = random() % 100;
    if (what < 40 && mine.size() < 40) {
      const std::uint64_t bytes = any_size(random);
      const std::uint64_t value = random();
      mine.push_back({make(a, bytes, value), bytes, value});
    } else if (what < 60 && !mine.empty()) {
      const held& h = mine[random() % mine.size()];
      const claim c = a.share(h.block.ref, true);
      if (!mail.put({c, h.bytes, h.seed})) a.give_back(c);
    } else if (what < 80) {
      message m;
      if (!mail.get(m)) continue;
      const allocation got = a.acquire(m.what);  // leased: never stale
      broken += !filled(got.data, m.bytes, m.seed);
      mine.push_back({got, m.bytes, m.seed});
    } else if (!mine.empty()) {
      const std::size_t at = random() % mine.size();
      broken += !filled(mine[at].block.data, mine[at].bytes, mine[at].seed);
      a.release(mine[at].block.ref);
      mine[at] = mine.back();
      mine.pop_back();
    }
    if (what == 99) (void)a.trim();
    if (what == 98) (void)a.collect(false);
    if (what == 97 && !mine.empty()) {
      const held& h = mine[random() % mine.size()];
      broken += a.find(h.block.data).data != h.block.data;
      broken += a.statistics().live_blocks == 0;
    }
  }
  for (held& h : mine) {
    broken += !filled(h.block.data, h.bytes, h.seed);
    a.release(h.block.ref);
  }
  return broken;
}

int take_all(arena& a, exchange& mail) {
  int broken = 0;
  for (message m; mail.get(m);) {
    allocation got = a.acquire(m.what);
    broken += !filled(got.data, m.bytes, m.seed);
    a.release(got.ref);
  }
  return broken;
}

}  // namespace

TEST_CASE("processes share, fork and are killed") {
  const auto a = arena::create(room);
  a->set_cache_limit(64 * mib);
  exchange mail;
  std::mt19937_64 random(1);
  int broken = 0, killed = 0;
  for (int round = 0; round < 12; ++round) {
    std::vector<std::unique_ptr<child>> all;
    for (std::uint64_t i = 0; i < 4; ++i)
      all.push_back(fork_from(*a, [&, i] {
        const std::uint64_t seed = static_cast<std::uint64_t>(round) * 100 + i;
        int found = work(*a, mail, seed, 300);
        auto grandchild = fork_from(*a, [&] { return work(*a, mail, seed + 50, 100) == 0 ? 0 : 1; });
        found += work(*a, mail, seed + 60, 300);
        const int code = grandchild->wait();
        return found == 0 && code == 0 ? 0 : 1;
      }));
    broken += work(*a, mail, 7, 100);
    for (const auto& one : all)
      if (random() % 2 == 0) {
        ::kill(one->pid(), SIGKILL);
        ++killed;
      }
    for (const auto& one : all) {
      const int code = one->wait();
      CHECK((code == 0 || code == -SIGKILL));
    }
  }
  broken += take_all(*a, mail);
  CHECK(broken == 0);
  CHECK(killed > 0);
  // Grandchildren of the killed; one that has not run yet has its parent's reservation and no more.
  for (; a->participants().size() > 1; std::this_thread::yield()) (void)a->collect(false);
  broken += take_all(*a, mail);
  CHECK(broken == 0);
  (void)a->revoke(0);  // messages of this process whose reader was killed before it loaded them
  nothing_left(*a);
}

TEST_CASE("threads share one arena") {
  const auto a = arena::create(room);
  exchange mail;
  std::atomic<int> broken{0};
  std::vector<std::thread> all;
  for (std::uint64_t i = 0; i < 4; ++i) all.emplace_back([&, i] { broken += work(*a, mail, i, 1500); });
  for (int i = 0; i < 10; ++i)
    CHECK(fork_from(*a, [&] { return work(*a, mail, 99, 20) == 0 ? 0 : 1; })->wait() == 0);
  for (std::thread& t : all) t.join();
  broken += take_all(*a, mail);
  CHECK(broken == 0);
  nothing_left(*a);
}

TEST_CASE("threads are participants of their own") {
  const auto a = arena::create(sizeof(void*) == 8 ? room : room / 4);
  exchange mail;
  std::atomic<int> broken{0};
  std::vector<std::unique_ptr<arena>> own;  // with leases out they could not be left
  for (int i = 0; i < 4; ++i) own.push_back(arena::attach(a->where()));
  std::vector<std::thread> all;
  for (std::uint64_t i = 0; i < 4; ++i) all.emplace_back([&, i] { broken += work(*own[i], mail, i, 800); });
  for (std::thread& t : all) t.join();
  broken += take_all(*a, mail);
  CHECK(broken == 0);
  own.clear();
  nothing_left(*a);
}
