// Arenas of names are left when another value of SHAREDMEM_NAMESPACE was used and nothing is held in them.
#include <doctest.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <sharedmem/home.hpp>
#include <sharedmem/names.hpp>

#include "host.hpp"
#include "names_left.hpp"
#include "shared/name_table.hpp"

using namespace sharedmem;

namespace {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int groups_in_a_row = 100;  // an arena takes tens of milliseconds there
#else
constexpr int groups_in_a_row = 2000;
#endif

}  // namespace

TEST_CASE("the arena of names that was used last stays, and another is left with its last block") {
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

TEST_CASE(
    "what takes several calls stays among the names of one value, whatever the environment says meanwhile") {
  CHECK(alone([](const counts& before) {
          const name_space first = name_space::now();
          ask_in(full_name("second"));
          name_ticket mine;
          MUST(find_name("x", first).what == name_status::none && claim_name("x", mine, first));
          MUST(name_arena(mine) == &name_arena(first) && name_arena(mine) != &name_arena());
          allocation x = make(*name_arena(mine), 5000, 1);
          bind_name(mine, x.ref, "described");
          wait_for_names(1, first);
          MUST(find_name("x").what == name_status::none && all_names().empty());
          MUST(all_names(first).size() == 1 && !claim_name("x", mine, first));
          name_found found = find_name("x", first);
          MUST(found.what == name_status::ready && found.block.data == x.data);
          release(found.block.ref);
          release(x.ref);
          (void)name_arena(first);
          MUST(now() == before);
          return 0;
        }) == 0);
}

TEST_CASE("a process that only looks for names keeps nothing attached of the groups that it looked at") {
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
            move_to(full_name("third"));
            MUST(other.participants() == 2);
            arena* host = name_arena(mine);
            MUST(host != nullptr && host != &name_arena());
            MUST(claim_name("y", mine) && name_arena(mine) == &name_arena());
            give_up_name(mine);
            ask_in(second);
            const name_found seen = find_name("x");
            MUST(seen.what == name_status::building && seen.at.host == host->where().uuid);
            move_to(full_name("third"));
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
          move_to(full_name("third"));
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
          const builder of_x(second);
          ask_in(second);
          const name_found seen = find_name("x");
          MUST(seen.what == name_status::building && !wait_for_name(seen.at, 0, 1000));
          move_to(full_name("first"));
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
          const builder of_x(second);
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
          move_to(full_name("first"));
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
              move_to(first);
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

TEST_CASE("a block that is taken while another arena is requested is found by its address") {
  CHECK(alone([](const counts& before) {
          ask_in(full_name("second"));
          allocation x;
          {
            const host_use use = host_arena();
            move_to(full_name("first"));
            x = make(*use, 5000, 5);
          }
          MUST(arena_of(x.data) == x.ref.home && filled(x.data, 5000, 5));
          release(x.ref);
          MUST(now() == before);
          return 0;
        }) == 0);
}

TEST_CASE("threads make, find and drop names while others have their arena left") {
  CHECK(alone([](const counts& before) {
          std::atomic<bool> stop{false};
          std::atomic<int> failures{0};
          std::vector<std::thread> threads;
          // As a call with another value of SHAREDMEM_NAMESPACE does; no thread may set that variable meanwhile.
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
