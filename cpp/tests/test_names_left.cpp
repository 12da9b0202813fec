// Arenas of names are left when another value of SHAREDMEM_NAMESPACE was asked for and nothing is held in them.
#include <doctest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <sharedmem/home.hpp>
#include <sharedmem/names.hpp>

#include "arena_tools.hpp"
#include "host.hpp"
#include "os/segment.hpp"
#include "registry.hpp"
#include "shared/layout.hpp"
#include "shared/name_table.hpp"

using namespace sharedmem;

namespace {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int groups_in_a_row = 100;  // an arena takes tens of milliseconds there
#else
constexpr int groups_in_a_row = 2000;
#endif

std::size_t segments() { return os::segment::list(host_tag, {}).size(); }

std::string full_name(const std::string& test) { return test + " of " + std::to_string(::getpid()); }

/// From now on this process asks for names of that group, which no other test has.
void ask_in(const std::string& group) { ::setenv("SHAREDMEM_NAMESPACE", group.c_str(), 1); }

/// Arenas that this process has attached, and lines of its map that are System V segments.
struct counts {
  std::size_t arenas = 0, mapped = 0;
  friend bool operator==(const counts&, const counts&) = default;
};

counts now() {
  counts n;
  registry& r = the_registry();
  {
    const registry_lock lock(r);
    for_each_attached(r, [&](entry&, std::uint32_t) { ++n.arenas; });
  }
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) n.mapped += line.find("/SYSV") != line.npos ? 1 : 0;
  return n;
}

/// Runs a test in a process of its own, which has the arena of one group, empty, and is given the counts of then.
template <class F>
int alone(F&& test) {
  const std::size_t before = segments();
  child one([&] {
    ::unsetenv("SHAREDMEM_ARENA");
    ::setenv("SHAREDMEM_ARENA_SIZE", "32MiB", 1);
    ::alarm(120);  // ends what waits for ever
    ask_in(full_name("first"));
    (void)name_arena();
    return std::forward<F>(test)(now());
  });
  const int code = one.wait();
  CHECK(segments() == before);
  return code;
}

/// A block under a name; it is the caller's.
allocation bound(const char* name, std::uint64_t bytes, std::uint64_t seed) {
  name_ticket mine;
  if (!claim_name(name, mine)) throw std::runtime_error("lost");
  allocation x = make(*name_arena(mine), bytes, seed);
  bind_name(mine, x.ref, "described");
  return x;
}

allocation attached(const char* name) {
  name_found got = find_name(name);
  if (got.what != name_status::ready) throw std::runtime_error(std::string("no ") + name);
  return got.block;
}

/// Another process in the arena of a group: it tells how many there are.
class neighbour {
 public:
  explicit neighbour(const std::string& group)
      : process_([this, group] {
          ask_in(group);
          name_arena();
          answers_.put(std::uint32_t{0});
          while (requests_.get<char>() == 'n') answers_.put(name_arena().statistics().participants);
          return 0;
        }) {
    (void)answers_.get<std::uint32_t>();
  }
  std::uint32_t participants() {
    requests_.put('n');
    return answers_.get<std::uint32_t>();
  }

 private:
  channel requests_, answers_;
  child process_;
};

}  // namespace

TEST_CASE("the arena of the names that were asked for last stays, and another is left with its last block") {
  CHECK(alone([](const counts& before) {
          const std::string first = full_name("first"), second = full_name("second");
          neighbour other(second);
          ask_in(second);
          allocation x = bound("x", 5000, 1), y = bound("y", 3 * mib, 2);
          MUST(now().arenas == before.arenas);  // the first one was idle, and is left
          MUST(other.participants() == 2);
          ask_in(first);
          MUST(find_name("x").what == name_status::none);
          MUST(now().arenas == before.arenas + 0 && other.participants() == 2);
          release(x.ref);
          MUST(other.participants() == 2);
          MUST(arena_of(y.data) == y.ref.home && filled(y.data, 3 * mib, 2));
          release(y.ref);
          MUST(other.participants() == 1);
          (void)name_arena();
          allocation z = bound("x", 100, 3);
          release(z.ref);
          MUST(now() == before);
          MUST(find_name("x").what == name_status::none && now() == before);  // and it stays
          return 0;
        }) == 0);
}

TEST_CASE("whoever only looks for names leaves nothing attached of the groups that it looked at") {
  CHECK(alone([](const counts& before) {
          std::vector<std::unique_ptr<neighbour>> others;
          for (int i = 0; i < 3; ++i)
            others.push_back(std::make_unique<neighbour>(full_name("group " + std::to_string(i))));
          for (int i = 0; i < 3; ++i) {
            ask_in(full_name("group " + std::to_string(i)));
            MUST(find_name("x").what == name_status::none && all_names().empty());
            MUST(now() == before && others[i]->participants() == 2);
            if (i > 0) MUST(others[i - 1]->participants() == 1);
          }
          ask_in("a group that has no arena");
          MUST(find_name("x").what == name_status::none);
          MUST(now().arenas == 0 && others[2]->participants() == 1);
          return 0;
        }) == 0);
}

TEST_CASE("groups of names without number, one after the other") {
  CHECK(alone([](const counts& before) {
          const std::size_t there = segments();
          for (int i = 0; i < groups_in_a_row; ++i) {
            ask_in(full_name(std::to_string(i)));
            allocation x = bound("x", 5000, i);
            MUST(filled(x.data, 5000, i));
            release(x.ref);
          }
          MUST(now() == before && segments() == there);
          return 0;
        }) == 0);
}

TEST_CASE("a building keeps its arena until it ends, in whatever way") {
  for (const char how : {'b', 'f', 'g'}) {
    CAPTURE(how);
    CHECK(alone([how](const counts& before) {
            const std::string second = full_name("second");
            neighbour other(second);
            ask_in(second);
            name_ticket mine;
            MUST(claim_name("x", mine));
            ask_in(full_name("third"));
            (void)name_arena();
            MUST(other.participants() == 2);
            arena* host = name_arena(mine);
            MUST(host != nullptr && host != &name_arena());
            MUST(claim_name("y", mine) && name_arena(mine) == &name_arena());
            give_up_name(mine);
            ask_in(second);
            const name_found seen = find_name("x");
            MUST(seen.what == name_status::building && seen.at.host == host->where().uuid);
            ask_in(full_name("third"));
            (void)name_arena();
            mine = seen.at;
            allocation x = make(*host, 5000, 4);
            if (how == 'b') bind_name(mine, x.ref, "described");
            if (how == 'f') fail_name(mine, "why");
            if (how == 'g') give_up_name(mine);
            MUST(name_arena(mine) == nullptr || other.participants() == 2);
            MUST(arena_of(x.data) == host && filled(x.data, 5000, 4));
            release(x.ref);
            MUST(other.participants() == 1 && now().arenas == before.arenas);
            return 0;
          }) == 0);
  }
}

TEST_CASE("a building that ends when nothing else is held leaves its arena") {
  CHECK(alone([](const counts&) {
          const std::string second = full_name("second");
          neighbour other(second);
          ask_in(second);
          name_ticket mine;
          MUST(claim_name("x", mine));
          ask_in(full_name("third"));
          (void)name_arena();
          MUST(other.participants() == 2);
          give_up_name(mine);
          MUST(other.participants() == 1);
          return 0;
        }) == 0);
}

TEST_CASE("what was read of a name says that it has changed when its arena was left") {
  CHECK(alone([](const counts& before) {
          const std::string second = full_name("second");
          neighbour other(second);
          channel claimed;
          child builder([&] {
            ask_in(second);
            name_ticket mine;
            MUST(claim_name("x", mine));
            claimed.put('c');
            sleep_for_ever();
            return 0;
          });
          (void)claimed.get<char>();
          ask_in(second);
          const name_found seen = find_name("x");
          MUST(seen.what == name_status::building && !wait_for_name(seen.at, 0, 1000));
          ask_in(full_name("first"));
          (void)name_arena();
          MUST(wait_for_name(seen.at, 0));
          MUST(!vacate_name(seen.at));
          MUST(now() == before && other.participants() == 2);
          ask_in(second);  // it is the same again
          MUST(find_name("x").at == seen.at && !wait_for_name(seen.at, 0, 1000));
          return 0;
        }) == 0);
}

TEST_CASE("an arena stays as long as a thread waits in it") {
  CHECK(alone([](const counts& before) {
          const std::string second = full_name("second");
          neighbour other(second);
          channel claimed;
          child builder([&] {
            ask_in(second);
            name_ticket mine;
            MUST(claim_name("x", mine));
            claimed.put('c');
            sleep_for_ever();
            return 0;
          });
          (void)claimed.get<char>();
          ask_in(second);
          const name_found seen = find_name("x");
          std::atomic<int> rounds{0}, changed{0};
          std::atomic<bool> stop{false};
          std::thread waits([&] {
            while (!stop.load()) {
              changed.fetch_add(wait_for_name(seen.at, 0, 50'000'000) ? 1 : 0);
              ++rounds;
            }
          });
          while (rounds.load() < 2) std::this_thread::yield();
          MUST(changed.load() == 0);
          ask_in(full_name("first"));
          (void)name_arena();
          for (int at = rounds.load() + 2; rounds.load() < at;) std::this_thread::yield();
          stop.store(true);
          waits.join();
          MUST(changed.load() > 0 && now() == before && other.participants() == 2);
          return 0;
        }) == 0);
}

TEST_CASE("an arena stays as long as a call uses it, and the last of these calls leaves it") {
  CHECK(alone([](const counts& before) {
          const std::string first = full_name("first"), second = full_name("second");
          neighbour other(second);
          ask_in(second);
          {
            const host_use use = find_host_arena();
            {
              const host_use by_uuid = attached_host(use->where().uuid), again = find_host_arena();
              MUST(&*by_uuid == &*use && &*again == &*use);
              ask_in(first);
              (void)name_arena();
              MUST(now().arenas == 2 && other.participants() == 2);
              MUST(&*attached_host(use->where().uuid) == &*use);
              use->check();
            }
            MUST(now().arenas == 2 && other.participants() == 2);
          }
          MUST(now() == before && other.participants() == 1);
          return 0;
        }) == 0);
}

TEST_CASE("what was taken while another arena was asked for is found by its address") {
  CHECK(alone([](const counts& before) {
          ask_in(full_name("second"));
          allocation x;
          {
            const host_use use = host_arena();
            ask_in(full_name("first"));
            (void)name_arena();
            x = make(*use, 5000, 5);
          }
          MUST(arena_of(x.data) == x.ref.home && filled(x.data, 5000, 5));
          release(x.ref);
          MUST(now() == before);
          return 0;
        }) == 0);
}

TEST_CASE("a forked child leaves what only its parent builds in, and does not end that") {
  CHECK(alone([](const counts&) {
          const std::string second = full_name("second");
          neighbour other(second);
          ask_in(second);
          name_ticket mine;
          MUST(claim_name("x", mine));
          ask_in(full_name("third"));
          (void)name_arena();
          channel go, done;
          child forked([&] {
            done.put(now().arenas);
            (void)go.get<char>();
            if (name_arena(mine) != nullptr) return 1;
            fail_name(mine, "not ours");
            give_up_name(mine);
            try {
              allocation x = make(name_arena(), 100, 1);
              bind_name(mine, x.ref, "");
              return 2;
            } catch (const std::logic_error&) {
            }
            ask_in(second);
            return find_name("x").what == name_status::building ? 0 : 3;
          });
          MUST(done.get<std::size_t>() == 1);  // the third
          MUST(other.participants() == 2);
          go.put('g');
          MUST(forked.wait() == 0);
          allocation x = make(*name_arena(mine), 100, 1);
          bind_name(mine, x.ref, "");
          ask_in(second);
          name_found got = find_name("x");
          MUST(got.what == name_status::ready);
          release(got.block.ref);
          release(x.ref);
          return 0;
        }) == 0);
}

TEST_CASE("a forked child leaves the arena that only threads of its parent wait in") {
  CHECK(alone([](const counts&) {
          const std::string second = full_name("second");
          neighbour other(second);
          ask_in(second);
          name_ticket mine;
          MUST(claim_name("x", mine));
          const name_found seen = find_name("x");
          std::atomic<bool> stop{false};
          std::thread waits([&] {
            while (!stop.load()) (void)wait_for_name(seen.at, 0);
          });
          ask_in(full_name("first"));
          (void)name_arena();
          for (int i = 0; i < 5; ++i) {
            ::usleep(20'000);
            channel done, go;
            child forked([&] {
              done.put(now().arenas);
              return go.get<char>() == 'g' ? 0 : 1;
            });
            MUST(done.get<std::size_t>() == 1 && other.participants() == 2);
            go.put('g');
            MUST(forked.wait() == 0);
          }
          stop.store(true);
          give_up_name(mine);
          waits.join();
          MUST(other.participants() == 1);
          return 0;
        }) == 0);
}

TEST_CASE("a forked child keeps its blocks when its parent leaves the arena, and the other way round") {
  CHECK(alone([](const counts& before) {
          const std::string second = full_name("second");
          ask_in(second);
          allocation x = bound("x", 5000, 6);
          ask_in(full_name("first"));
          (void)name_arena();
          channel go;
          child forked([&] {
            (void)go.get<char>();
            MUST(filled(x.data, 5000, 6) && arena_of(x.data) == x.ref.home);
            release(x.ref);
            return now().arenas == 1 ? 0 : 1;
          });
          child keeps([&] {
            (void)go.get<char>();
            ask_in(second);
            allocation again = attached("x");
            return filled(again.data, 5000, 6) && again.data == x.data ? 0 : 1;
          });
          release(x.ref);
          MUST(now() == before);
          go.put('1');
          go.put('2');
          MUST(forked.wait() == 0 && keeps.wait() == 0);
          return 0;
        }) == 0);
}

TEST_CASE("blocks stay with others when the process that made them leaves the arena, and comes back") {
  CHECK(alone([](const counts& before) {
          const std::string second = full_name("second");
          channel has, go, dropped;
          child other([&] {
            (void)go.get<char>();
            ask_in(second);
            allocation small = attached("small"), large = attached("large");
            has.put('h');
            (void)go.get<char>();
            MUST(filled(small.data, 5000, 1) && filled(large.data, 3 * mib, 2));
            release(small.ref);
            dropped.put('d');
            (void)go.get<char>();
            return filled(large.data, 3 * mib, 2) ? 0 : 1;
          });
          ask_in(second);
          allocation small = bound("small", 5000, 1), large = bound("large", 3 * mib, 2);
          go.put('1');
          (void)has.get<char>();
          release(small.ref);
          release(large.ref);
          ask_in(full_name("first"));
          (void)name_arena();
          MUST(now() == before);
          ask_in(second);
          std::vector<allocation> more;
          for (int i = 0; i < 20; ++i) more.push_back(make(name_arena(), 5000, 100 + i));
          go.put('2');
          (void)dropped.get<char>();
          MUST(find_name("small").what == name_status::none);
          allocation again = attached("large");
          for (int i = 0; i < 20; ++i) more.push_back(make(name_arena(), 5000, 120 + i));
          for (int i = 0; i < 40; ++i) MUST(filled(more[i].data, 5000, 100 + i));
          MUST(filled(again.data, 3 * mib, 2));
          name_arena().check();
          go.put('3');
          MUST(other.wait() == 0);
          release(again.ref);
          for (allocation& each : more) release(each.ref);
          ask_in(full_name("first"));
          (void)name_arena();
          MUST(now() == before);
          return 0;
        }) == 0);
}

TEST_CASE("threads make, find and drop names while others have their arena left") {
  CHECK(alone([](const counts& before) {
          std::atomic<bool> stop{false};
          std::atomic<int> failures{0};
          std::vector<std::thread> threads;
          // What a thread does that asks with another value of SHAREDMEM_NAMESPACE, which no thread may set meanwhile.
          for (int i = 0; i < 2; ++i)
            threads.emplace_back([&, i] {
              while (!stop.load())
                if (kept_host(hash_name("none") + static_cast<std::uint64_t>(i))) ++failures;
            });
          for (int i = 0; i < 2; ++i)
            threads.emplace_back([&, i] {
              const std::string own = "own " + std::to_string(i);
              for (int n = 0; n < 400 && !stop.load(); ++n) {
                name_ticket mine;
                if (!claim_name(own, mine)) ++failures;
                allocation x = make(*name_arena(mine), 5000, n);
                bind_name(mine, x.ref, "described");
                name_found got = find_name(own);
                if (got.what != name_status::ready || got.block.data != x.data) ++failures;
                release(x.ref);
                if (arena_of(got.block.data) != got.block.ref.home || !filled(got.block.data, 5000, n))
                  ++failures;
                release(got.block.ref);
                if (find_name(own).what != name_status::none) ++failures;
                (void)all_names();
              }
            });
          threads[2].join();
          threads[3].join();
          stop.store(true);
          threads[0].join();
          threads[1].join();
          (void)name_arena();
          MUST(failures.load() == 0 && now() == before);
          return 0;
        }) == 0);
}
