// The arena of names: found through the kernel's list, made at most once, even if processes are killed or stopped.
#include <doctest.h>

#include <sys/shm.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <sharedmem/home.hpp>
#include <sharedmem/names.hpp>

#include "arena_tools.hpp"
#include "arena_words.hpp"
#include "host.hpp"
#include "needs.hpp"
#include "os/identity.hpp"
#include "os/linux/sysv.hpp"
#include "os/segment.hpp"
#include "shared/fault.hpp"
#include "shared/layout.hpp"
#include "shared/name_table.hpp"
#include "state.hpp"

using namespace sharedmem;

namespace {

using uuid = std::array<std::uint64_t, 2>;

/// Names of this test alone, in small arenas.
std::uint64_t begin(const std::string& test) {
  ::unsetenv("SHAREDMEM_ARENA");
  ::setenv("SHAREDMEM_ARENA_SIZE", "32MiB", 1);
  const std::string name = test + std::to_string(::getpid());
  ::setenv("SHAREDMEM_NAMESPACE", name.c_str(), 1);
  return hash_name(name);
}

std::size_t hosts() { return os::segment::list(host_tag(name_space::now().hash), {}).size(); }

/// A segment of the key, in the state in which the maker of the arena first has it.
os::meeting candidate(std::uint64_t name_space, os::segment& object) {
  const auto plan = geometry_plan::primary(32 * mib, 1024, descriptor_bytes_for(1024), host_names);
  return os::segment::create_under_key(host_key_number(name_space, 0), static_cast<std::size_t>(plan.bytes),
                                       host_tag(name_space), object);
}

word32& state_of(const os::segment& s) { return reinterpret_cast<header*>(s.data())->state; }

}  // namespace

TEST_CASE("processes that need the arena at the same time get one, whichever of them is killed") {
  begin("at once");
  const std::size_t before = hosts();
  std::mt19937 random(20240131);
  for (int round = 0; round < 60; ++round) {
    channel start, answers;
    std::vector<std::unique_ptr<child>> all;
    constexpr int processes = 8;
    for (int i = 0; i < processes; ++i)
      all.push_back(std::make_unique<child>([&] {
        (void)start.get<char>();
        answers.put(name_arena().where().uuid);
        sleep_for_ever();
        return 0;
      }));
    for (int i = 0; i < processes; ++i) start.put('x');
    ::usleep(random() % 4000);
    all.erase(all.begin() + static_cast<long>(random() % processes));  // killed at some step, or later
    std::vector<uuid> got;
    answers.close_sending();
    for (int i = 0; i < processes - 1; ++i) got.push_back(answers.get<uuid>());
    // The one that was killed may have answered, too, from an arena that went with it.
    int equal = 0;
    for (const uuid& u : got) equal += u == got.back();
    CHECK(equal >= processes - 2);
    CHECK(hosts() == before + 1);
    all.clear();
    CHECK(hosts() == before);
  }
  CHECK(sweep_orphans() <= 1);
}

TEST_CASE("a maker that is stopped is condemned, and does not open its arena any more") {
  const std::uint64_t space = begin("stopped");
  os::segment object;
  REQUIRE(candidate(space, object) == os::meeting::made);
  object.attach();
  child other([] {
    (void)name_arena();
    return 0;
  });
  CHECK(other.wait() == 0);
  CHECK(state_of(object).load() == static_cast<std::uint32_t>(birth::condemned));
  // What the maker does next.
  const auto plan = geometry_plan::primary(32 * mib, 1024, descriptor_bytes_for(1024), host_names);
  header* h = make_header(object.data(), plan, {1, {1, 2}, 3, -1, 1024, space});
  CHECK(h->state.load() == static_cast<std::uint32_t>(birth::condemned));
}

TEST_CASE("a candidate that is open, or condemned, is released by the next process that finds it") {
  const std::uint64_t space = begin("left open");
  for (const birth left : {birth::open, birth::condemned}) {
    os::segment object;
    REQUIRE(candidate(space, object) == os::meeting::made);
    object.attach();
    state_of(object).store(static_cast<std::uint32_t>(left));
    child other([] {
      (void)name_arena();
      return 0;
    });
    CHECK(other.wait() == 0);
    os::segment again;
    CHECK(candidate(space, again) == os::meeting::made);  // the key is free
    os::segment::let_key_go(again.name());
  }
}

TEST_CASE("a segment that is in the list but not open is not used as an arena") {
  const std::uint64_t space = begin("condemned");
  os::segment object;
  REQUIRE(candidate(space, object) == os::meeting::made);
  object.attach();
  const auto plan = geometry_plan::primary(32 * mib, 1024, descriptor_bytes_for(1024), host_names);
  header* h = make_header(object.data(), plan, {1, {1, 2}, host_id(), -1, 1024, space});
  h->version.store(layout_version);
  for (const birth left : {birth::unborn, birth::condemned}) {
    h->state.store(static_cast<std::uint32_t>(left));
    os::segment::let_key_go(object.name());
    CHECK_FALSE(find_host_arena());
    child other([] { return name_arena().where().uuid == uuid{1, 2} ? 1 : 0; });
    CHECK(other.wait() == 0);
  }
}

TEST_CASE("a candidate whose maker is dead is swept, and one whose maker lives is not") {
  const std::uint64_t space = begin("swept");
  child maker([&] {
    os::segment object;
    return candidate(space, object) == os::meeting::made ? 0 : 1;
  });
  CHECK(maker.wait() == 0);
  CHECK(sweep_orphans() == 1);
  os::segment own;
  REQUIRE(candidate(space, own) == os::meeting::made);
  CHECK(sweep_orphans() == 0);
  os::segment::let_key_go(own.name());
}

TEST_CASE("a look makes no arena, and namespaces have arenas of their own") {
  begin("look");
  const std::size_t before = hosts();
  CHECK_FALSE(find_host_arena());
  CHECK(hosts() == before);
  child other([&] {
    arena& first = name_arena();
    const uuid before_it = first.where().uuid;
    if (&name_arena() != &first || &*find_host_arena() != &first) return 1;
    ::setenv("SHAREDMEM_NAMESPACE", "another", 1);
    if (find_host_arena()) return 2;
    if (name_arena().where().uuid == before_it) return 3;
    begin("look");  // of this pid: the third
    return !find_host_arena() ? 0 : 4;
  });
  CHECK(other.wait() == 0);
  CHECK(hosts() == before);
}

TEST_CASE("namespaces whose arenas have the same tag are told apart") {
  begin("tag");
  name_space one{1}, other{2};
  while (host_tag(other.hash) != host_tag(one.hash)) ++other.hash;
  child user([&] {
    const host_use first = host_arena(one);
    if (find_host_arena(other)) return 1;
    const host_use second = host_arena(other);
    return &*first != &*second && &*find_host_arena(one) == &*first ? 0 : 2;
  });
  CHECK(user.wait() == 0);
}

TEST_CASE("a segment of another program under the key of the arena stays, and another key is used") {
  const std::uint64_t space = begin("taken");
  const auto tag = static_cast<std::size_t>(os::meeting_size + host_tag(space));
  const std::size_t bytes = 2 * os::huge_page_size;
  const auto key = static_cast<key_t>(os::meeting_keys | (host_key_number(space, 0) & ~os::meeting_key_mask));
  struct {
    std::size_t bytes;
    int mode;
  } const strangers[] = {{bytes + tag, 0640}, {bytes + tag - 1, 0600}, {bytes, 0600}, {tag, 0600}};
  for (const auto& each : strangers) {
    CAPTURE(each.bytes);
    const int id = ::shmget(key, each.bytes, IPC_CREAT | IPC_EXCL | each.mode);
    REQUIRE(id >= 0);
    os::segment object;
    CHECK(candidate(space, object) == os::meeting::taken);
    child other([] { return name_arena().statistics().participants == 1 ? 0 : 1; });
    CHECK(other.wait() == 0);
    CHECK(::shmctl(id, IPC_RMID, nullptr) == 0);
  }
}

TEST_CASE("the arena of names is never a home") {
  begin("no home");
  channel out;
  child owner([&] {
    allocation x = make(name_arena(), 5000, 3);
    out.put(name_arena().where());
    out.put(name_arena().share(x.ref, false));
    sleep_for_ever();
    return 0;
  });
  const auto where = out.get<locator>();
  const auto what = out.get<claim>();
  child reader([&] {
    ::unsetenv("SHAREDMEM_ARENA");
    allocation got = acquire(where, what);
    if (!filled(got.data, 5000, 3)) return 1;
    if (home_if_any() != nullptr) return 2;
    if (home().where().uuid == where.uuid) return 3;
    arena& names = name_arena();
    if (names.where().uuid != where.uuid || got.ref.home != &names) return 4;  // attached once
    release(got.ref);
    return &*find_host_arena() == &names ? 0 : 5;  // and it stays
  });
  CHECK(reader.wait() == 0);
}

TEST_CASE("the error for one process too many says what can be done") {
  begin("full");
  channel full, done;
  child owner([&] {
    arena& a = name_arena();
    const arena_words words(a);
    std::uint64_t mine = 0;
    for (std::uint32_t s = 0; s < words.head().slots - overflow_slots; ++s) {
      if (const std::uint64_t seen = words.slot(s).ctl.load(); seen != 0) mine = seen;
      words.slot(s).ctl.store(mine);
    }
    words.head().slot_mark.store(words.head().slots - overflow_slots);
    full.put(words.head().slots - overflow_slots);
    (void)done.get<char>();
    return 0;
  });
  const auto slots = full.get<std::uint32_t>();
  child late([&] {
    try {
      (void)name_arena();
    } catch (const no_memory& error) {
      const std::string said = error.what();
      return said.find("all " + std::to_string(slots) + " process slots") != std::string::npos &&
                     said.find("SHAREDMEM_NAMESPACE") != std::string::npos &&
                     said.find("SHAREDMEM_ARENA=") == std::string::npos
                 ? 0
                 : 1;
    }
    return 2;
  });
  CHECK(late.wait() == 0);
  done.put('d');
  CHECK(owner.wait() == 0);
}

TEST_CASE("a forked child has the arena too") {
  begin("fork");
  child parent([] {
    arena& a = name_arena();
    if (attached_arenas().size() != 1) return 2;  // which leaves what is idle
    child forked([&] { return &name_arena() == &a && a.statistics().participants == 2 ? 0 : 1; });
    return forked.wait();
  });
  CHECK(parent.wait() == 0);
}

#ifdef SHAREDMEM_FAULT_POINTS
TEST_CASE("a process killed at any step of making the arena leaves nothing behind") {
  begin("steps");
  const std::size_t before = hosts();
  for (const char* at :
       {"host_looked", "host_made", "host_attached", "host_begun", "host_open", "host_published"}) {
    CAPTURE(at);
    child victim([&] {
      ::setenv("SHAREDMEM_FAULT", (std::string(at) + ":1").c_str(), 1);
      (void)name_arena();
      return 0;
    });
    CHECK(victim.wait() == -SIGKILL);
    child next([] {
      (void)name_arena();
      return hosts() > 0 ? 0 : 1;
    });
    CHECK(next.wait() == 0);
    CHECK(hosts() == before);
    CHECK(sweep_orphans() == 0);
  }
}

/// Two processes need the arena; the first is stopped at a step until the other one has it.
void meet_in_one_arena(const char* step) {
  const std::size_t before = hosts();
  channel had, done;
  const auto ask = [&] {
    had.put(name_arena().where().uuid);
    (void)done.get<char>();
    return 0;
  };
  child late([&] {
    ::setenv("SHAREDMEM_FAULT", (std::string(step) + ":1:stop").c_str(), 1);
    return ask();
  });
  int status = 0;
  REQUIRE(::waitpid(late.pid(), &status, WUNTRACED) == late.pid());
  REQUIRE(WIFSTOPPED(status));
  child first(ask);
  const auto made = had.get<uuid>();
  ::kill(late.pid(), SIGCONT);
  CHECK(had.get<uuid>() == made);
  CHECK(hosts() == before + 1);
  done.put('1');
  done.put('2');
  CHECK(first.wait() == 0);
  CHECK(late.wait() == 0);
}

TEST_CASE("a process that searched before another made the arena searches again, and makes none") {
  begin("second look");
  meet_in_one_arena("host_looked");
}

TEST_CASE("a maker that was condemned while it was stopped does not open what it had begun") {
  begin("condemned");
  meet_in_one_arena("host_begun");
}
#endif
