// Arenas of names are left while other processes, forked children above all, use the same ones.
#include <doctest.h>

#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <sharedmem/names.hpp>

#include "names_left.hpp"

using namespace sharedmem;

TEST_CASE("a forked child leaves what only its parent builds in, and does not end that") {
  CHECK(alone([](const counts&) {
          const std::string second = full_name("second");
          neighbour other(second);
          ask_in(second);
          name_ticket mine;
          MUST(claim_name("x", mine));
          move_to(full_name("third"));
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
          move_to(full_name("first"));
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
          move_to(full_name("first"));
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
          move_to(full_name("first"));
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
          move_to(full_name("first"));
          MUST(now() == before);
          return 0;
        }) == 0);
}
