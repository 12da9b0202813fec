// Names of blocks: claimed, bound, found, failed, given up, vacated; and what a death leaves of them.
#include <doctest.h>

#include <sys/wait.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <sharedmem/home.hpp>
#include <sharedmem/names.hpp>

#include "arena_tools.hpp"
#include "os/segment.hpp"
#include "shared/fault.hpp"
#include "shared/layout.hpp"

using namespace sharedmem;

namespace {

/// Runs a test in a process of its own, with names of its own.
template <class F>
int alone(F&& test) {
  child one([&] {
    ::unsetenv("SHAREDMEM_ARENA");
    ::setenv("SHAREDMEM_ARENA_SIZE", "32MiB", 1);
    ::setenv("SHAREDMEM_NAMESPACE", std::to_string(::getpid()).c_str(), 1);
    return std::forward<F>(test)();
  });
  return one.wait();
}

/// A block under a name; it is the caller's.
allocation bound(const char* name, std::uint64_t bytes, std::uint64_t seed) {
  name_ticket mine;
  if (!claim_name(name, mine)) throw std::runtime_error("lost");
  allocation x = make(name_arena(), bytes, seed);
  bind_name(mine, x.ref, "described");
  return x;
}

}  // namespace

TEST_CASE("a name is bound, found by another process, and goes with its block") {
  CHECK(alone([] {
          MUST(find_name("x").what == name_status::none);
          allocation x = bound("x", 5000, 7);
          child other([] {
            name_found got = find_name("x");
            MUST(got.what == name_status::ready);
            MUST(got.text == "described");
            MUST(got.pid == static_cast<std::uint32_t>(::getppid()));
            MUST(filled(got.block.data, 5000, 7));
            release(got.block.ref);
            return 0;
          });
          MUST(other.wait() == 0);
          const auto all = all_names();
          MUST(all.size() == 1 && all[0].name == "x" && all[0].what == name_status::ready);
          MUST(all[0].holders == std::vector<std::uint32_t>{static_cast<std::uint32_t>(::getpid())});
          release(x.ref);
          MUST(all_names().empty());
          MUST(find_name("x").what == name_status::none);
          allocation y = bound("x", 100, 8);  // at once
          release(y.ref);
          return 0;
        }) == 0);
}

TEST_CASE("holding a block keeps its name, even if the process that bound it is killed") {
  CHECK(alone([] {
          channel said;
          child maker([&] {
            (void)bound("kept", 3 * mib, 9);
            said.put('x');
            sleep_for_ever();
            return 0;
          });
          (void)said.get<char>();
          name_found mine = find_name("kept");
          MUST(mine.what == name_status::ready);
          maker.kill();
          name_arena().collect(true);
          MUST(filled(mine.block.data, 3 * mib, 9));
          name_found again = find_name("kept");
          MUST(again.what == name_status::ready);
          release(again.block.ref);
          release(mine.block.ref);
          MUST(find_name("kept").what == name_status::none);
          return 0;
        }) == 0);
}

TEST_CASE("a message in flight keeps its name") {
  CHECK(alone([] {
          allocation x = bound("sent", 5000, 4);
          const claim c = name_arena().share(x.ref, true);
          release(x.ref);
          name_found got = find_name("sent");
          MUST(got.what == name_status::ready && filled(got.block.data, 5000, 4));
          release(got.block.ref);
          name_arena().give_back(c);
          MUST(find_name("sent").what == name_status::none);
          return 0;
        }) == 0);
}

TEST_CASE("after the builder is killed a waiting process is woken, and builds") {
  CHECK(alone([] {
          (void)name_arena();
          channel said;
          child maker([&] {
            name_ticket mine;
            MUST(claim_name("x", mine));
            (void)make(name_arena(), 5000, 1);
            said.put('x');
            sleep_for_ever();
            return 0;
          });
          (void)said.get<char>();
          name_found seen = find_name("x");
          MUST(seen.what == name_status::building);
          MUST(seen.pid == static_cast<std::uint32_t>(maker.pid()));
          name_ticket mine;
          MUST(!claim_name("x", mine));
          MUST(!wait_for_name(seen.at, 0));
          maker.kill();
          // By the first look, so that another one builds a tenth of a second later at most.
          MUST(wait_for_name(seen.at, 0));
          MUST(find_name("x").what == name_status::none);
          MUST(claim_name("x", mine));
          give_up_name(mine);
          name_arena().collect(true);
          MUST(name_arena().statistics().shared_blocks == 0);
          return 0;
        }) == 0);
}

TEST_CASE("a failure is reported, and vacated; giving up leaves nothing") {
  CHECK(alone([] {
          name_ticket mine;
          MUST(claim_name("x", mine));
          const name_found building = find_name("x");
          fail_name(mine, std::string(5000, 'e'));
          MUST(wait_for_name(building.at, 0));
          const name_found failed = find_name("x");
          MUST(failed.what == name_status::failed && failed.at.use() == building.at.use());
          MUST(failed.text == std::string(max_description_bytes, 'e'));
          MUST(vacate_name(failed.at));
          MUST(!vacate_name(failed.at));
          MUST(claim_name("x", mine));
          MUST(mine.use() != failed.at.use());
          give_up_name(mine);
          MUST(find_name("x").what == name_status::none);
          return 0;
        }) == 0);
}

TEST_CASE("a forked child does not end what its parent builds") {
  CHECK(alone([] {
          name_ticket mine;
          MUST(claim_name("x", mine));
          allocation x = make(name_arena(), 100, 1);
          child forked([&] {
            try {
              bind_name(mine, x.ref, "");
              return 1;
            } catch (const std::logic_error&) {
            }
            fail_name(mine, "not ours");
            give_up_name(mine);
            return find_name("x").what == name_status::building ? 0 : 2;
          });
          MUST(forked.wait() == 0);
          bind_name(mine, x.ref, "");
          name_found got = find_name("x");
          MUST(got.what == name_status::ready);
          release(got.block.ref);
          release(x.ref);
          return 0;
        }) == 0);
}

TEST_CASE("all names are in use: that is said, and nothing breaks") {
  CHECK(alone([] {
          std::vector<allocation> all;
          std::string name;
          for (std::uint32_t i = 0; i < host_names; ++i) {
            name = "name " + std::to_string(i);
            all.push_back(bound(name.c_str(), 100, i));
          }
          name_ticket mine;
          bool refused = false;
          try {
            (void)claim_name("one more", mine);
          } catch (const no_memory& full) {
            refused = std::strstr(full.what(), "4096 names") != nullptr;
          }
          MUST(refused);
          MUST(all_names().size() == host_names);
          name_found got = find_name("name 4095");
          MUST(got.what == name_status::ready && filled(got.block.data, 100, 4095));
          release(got.block.ref);
          release(all[17].ref);
          MUST(claim_name("one more", mine));  // in the place of one that was freed
          give_up_name(mine);
          for (allocation& x : all)
            if (x.ref.home != nullptr) release(x.ref);
          MUST(all_names().empty());
          return 0;
        }) == 0);
}

TEST_CASE("all names are in use by processes that have died: there is room") {
  CHECK(alone([] {
          (void)name_arena();
          child dies([] {
            for (std::uint32_t i = 0; i < host_names; ++i) {
              name_ticket mine;
              if (!claim_name("name " + std::to_string(i), mine)) return 1;
            }
            ::_exit(0);
          });
          MUST(dies.wait() == 0);
          name_ticket mine;
          MUST(claim_name("one more", mine));
          give_up_name(mine);
          return 0;
        }) == 0);
}

TEST_CASE("entries of failures that no call has read since are reused when all names are in use") {
  CHECK(alone([] {
          allocation x = bound("x", 100, 1);  // block 0, which entries that were never bound name as well
          MUST(find_name("x").block.ref.block == x.ref.block);
          name_ticket mine;
          for (std::uint32_t i = 0; i < host_names - 1; ++i) {
            MUST(claim_name("name " + std::to_string(i), mine));
            fail_name(mine, "why");
          }
          MUST(claim_name("one more", mine));
          give_up_name(mine);
          return 0;
        }) == 0);
}

TEST_CASE("all names are those of arrays whose memory others have now: there is room") {
  CHECK(alone([] {
          std::vector<allocation> all;
          for (std::uint32_t i = 0; i < host_names; ++i)
            all.push_back(bound(("name " + std::to_string(i)).c_str(), 100, i));
          for (allocation& each : all) release(each.ref);
          const placing here(&name_arena());
          for (std::uint32_t i = 0; i < 4 * host_names; ++i) all.push_back(allocate(100));  // of no name
          name_ticket mine;
          MUST(claim_name("one more", mine));
          MUST(find_name("name 5").what == name_status::none);
          give_up_name(mine);
          return 0;
        }) == 0);
}

TEST_CASE("what is placed lies in the arena of names, whatever the thread's cache has") {
  CHECK(alone([] {
          allocation small = allocate(100);
          release(small.ref);  // one is in the cache now
          {
            const placing here(&name_arena());
            allocation warm;
            MUST(!home().allocate_cached(100, 64, warm));
            child forked([] {
              allocation x = allocate(100);
              return x.ref.home == &home() ? 0 : 1;
            });
            MUST(forked.wait() == 0);
            for (const std::uint64_t bytes : {100UL, 40000UL, 5000000UL}) {
              allocation x = allocate(bytes);
              MUST(x.ref.home == &name_arena());
              {
                const placing nowhere(nullptr);
                allocation y = allocate(bytes);
                MUST(y.ref.home == &home());
                release(y.ref);
              }
              release(x.ref);
            }
          }
          allocation y = allocate(100);
          MUST(y.ref.home == &home());
          release(y.ref);
          return 0;
        }) == 0);
}

#ifdef SHAREDMEM_FAULT_POINTS
TEST_CASE("a process killed at any step of naming loses nothing of others") {
  CHECK(alone([] {
          (void)name_arena();
          for (const char* at : {"name_filling", "name_written", "name_claiming", "name_building",
                                 "name_described", "name_ready", "name_failed", "name_vacated"}) {
            child victim([&] {
              ::setenv("SHAREDMEM_FAULT", (std::string(at) + ":1").c_str(), 1);
              name_ticket mine;
              (void)find_name("failed");  // what an earlier round left is vacated by who finds it
              (void)find_name("bound");
              if (!claim_name("failed", mine)) return 1;
              if (std::strcmp(at, "name_ready") != 0 && std::strcmp(at, "name_described") != 0)
                fail_name(mine, "why");
              (void)bound("bound", 5000, 1);
              const name_found failed = find_name("failed");
              (void)vacate_name(failed.at);
              return 0;
            });
            std::fprintf(stderr, "%s\n", at);
            MUST(victim.wait() == -SIGKILL);
            (void)name_arena().collect(true);
            for (const char* name : {"failed", "bound"}) {
              const name_found left = find_name(name);
              MUST(left.what == name_status::none || left.what == name_status::failed);
              if (left.what == name_status::failed) MUST(vacate_name(left.at));
              allocation x = bound(name, 5000, 2);
              release(x.ref);
            }
            MUST(name_arena().statistics().shared_blocks == 0);
            name_arena().check();
          }
          return 0;
        }) == 0);
}

TEST_CASE("a process stopped at any step of naming delays no other, except for the name that it builds") {
  CHECK(alone([] {
          (void)name_arena();
          for (const char* at : {"name_filling", "name_written", "name_claiming", "name_building",
                                 "name_described", "name_ready"}) {
            std::fprintf(stderr, "%s\n", at);
            const bool builds =
                std::strcmp(at, "name_building") == 0 || std::strcmp(at, "name_described") == 0;
            const bool has_bound = std::strcmp(at, "name_ready") == 0;
            child victim([&] {
              ::setenv("SHAREDMEM_FAULT", (std::string(at) + ":1:stop").c_str(), 1);
              name_ticket mine;
              (void)find_name("same");  // what an earlier round left is vacated by who finds it
              if (!claim_name("same", mine)) return 1;
              allocation x = make(name_arena(), 5000, 1);
              bind_name(mine, x.ref, "of the stopped");
              release(x.ref);
              return 0;
            });
            int status = 0;
            MUST(::waitpid(victim.pid(), &status, WUNTRACED) == victim.pid() && WIFSTOPPED(status));
            (void)find_name("other");
            allocation other = bound("other", 5000, 2);
            name_found seen = find_name("same");
            name_ticket mine;
            if (has_bound) {
              MUST(seen.what == name_status::ready && filled(seen.block.data, 5000, 1));
              release(seen.block.ref);
            } else if (builds) {
              MUST(seen.what == name_status::building && !claim_name("same", mine));
              MUST(!wait_for_name(seen.at, 9));
            } else {
              MUST(seen.what == name_status::none && claim_name("same", mine));
            }
            ::kill(victim.pid(), SIGCONT);
            MUST(victim.wait() == (has_bound || builds ? 0 : 1));
            if (!has_bound && !builds) {
              allocation x = make(name_arena(), 100, 3);
              bind_name(mine, x.ref, "ours");
              name_found ours = find_name("same");
              MUST(ours.what == name_status::ready && ours.text == "ours");
              release(ours.block.ref);
              release(x.ref);
            }
            release(other.ref);
            MUST(all_names().empty());
          }
          return 0;
        }) == 0);
}
#endif
