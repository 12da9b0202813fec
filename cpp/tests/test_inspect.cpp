#include <doctest.h>

#include <sys/ipc.h>
#include <sys/shm.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <vector>

#include <sharedmem/arena.hpp>
#include <sharedmem/inspect.hpp>
#include "segment/mapping.hpp"
#include "shared/layout.hpp"

#include "arena_tools.hpp"
#include "needs.hpp"

using namespace sharedmem;

namespace {

using state = participant_report::state;

/// What a process that takes no part in the arena sees.
inspection look(const arena& a) {
  const auto found = inspect(a.where().segment);
  REQUIRE(found.has_value());
  return *found;
}

std::optional<state> state_of(const inspection& seen, pid_t pid) {
  const auto found = std::find_if(seen.participants.begin(), seen.participants.end(),
                                  [&](const auto& p) { return p.pid == static_cast<std::uint32_t>(pid); });
  if (found == seen.participants.end()) return std::nullopt;
  return found->what;
}

}  // namespace

TEST_CASE("an arena reports its participants, alive or dead, and messages in flight") {
  const auto a = arena::create(128 * mib);
  allocation x = make(*a, 3 * mib, 1);
  const auto living = fork_from(*a, [&] {
    sleep_for_ever();
    return 0;
  });
  const auto dying = fork_from(*a, [] { return 0; });
  CHECK(dying->wait() == 0);
  const claim sent = a->share(x.ref, true);
  while (state_of(look(*a), living->pid()) != state::active) ::usleep(1000);  // it may not have run yet

  const inspection seen = look(*a);
  CHECK(seen.uuid == a->where().uuid);
  CHECK(seen.segments == a->statistics().segments);
  CHECK(seen.cache_limit == a->cache_limit());
  CHECK(seen.leases == 1);
  CHECK(seen.bytes_in_flight >= 3 * mib);
  CHECK(seen.participants.size() == 3);
  CHECK(state_of(seen, ::getpid()) == state::active);
  CHECK(state_of(seen, living->pid()) == state::active);
  CHECK(std::count_if(seen.participants.begin(), seen.participants.end(),
                      [](const auto& p) { return p.what == state::dead; }) == 1);
  CHECK(
      std::none_of(seen.participants.begin(), seen.participants.end(), [](const auto& p) { return p.self; }));
  CHECK(std::any_of(seen.participants.begin(), seen.participants.end(),
                    [](const auto& p) { return p.bytes >= 4 * mib && p.chunks * 2 * mib == p.bytes; }));

  a->give_back(sent);
  a->release(x.ref);
  living->kill();
  (void)a->collect(true);
  CHECK(look(*a).participants.size() == 1);
  CHECK(look(*a).leases == 0);
  CHECK(look(*a).cached_bytes >= 4 * mib);
  (void)a->trim();
  CHECK(look(*a).cached_bytes < 4 * mib);
  a->check();
}

TEST_CASE("looking changes nothing: not the attaches, not the memory") {
  const auto a = arena::create(tiny);
  shmid_ds before{}, after{};
  REQUIRE(::shmctl(a->where().segment.id, IPC_STAT, &before) == 0);
  const std::uint64_t resident = a->statistics().resident_bytes;
  (void)look(*a);
  REQUIRE(::shmctl(a->where().segment.id, IPC_STAT, &after) == 0);
  CHECK(before.shm_nattch == after.shm_nattch);
  CHECK(a->statistics().resident_bytes == resident);
}

TEST_CASE("extension segments are counted") {
  const auto a = arena::create(tiny);
  std::vector<allocation> all;
  while (a->statistics().segments < 3) all.push_back(a->allocate(8 * mib, 64, pages::lazy));  // and a census
  CHECK(look(*a).segments == a->statistics().segments);
  CHECK(look(*a).segments >= 2);
  for (allocation& x : all) a->release(x.ref);
}

TEST_CASE("segments that are not the primary segment of an arena are recognized") {
  const auto plain = mapping::create(backing::sysv, mib, 1);
  CHECK(!inspect(plain.name()).has_value());
  const auto file = mapping::create(backing::memfd, mib, 7);
  CHECK(!inspect(file.name(), 7).has_value());
  CHECK_THROWS_AS((void)inspect(file.name(), 8), stale_handle);
  CHECK_THROWS_AS((void)inspect({}), std::invalid_argument);

  segment_name gone;
  {
    const auto a = arena::create(tiny);
    gone = a->where().segment;
  }
  CHECK_THROWS_AS((void)inspect(gone), stale_handle);
}

TEST_CASE("a segment of another user is not attached") {
  if (!needs_root()) return;
  channel names;
  const child other{[&] {
    if (::setuid(65534) != 0) return 1;
    const auto a = arena::create(tiny);
    names.put(a->where().segment);
    sleep_for_ever();
    return 0;
  }};
  const auto name = names.get<segment_name>();
  try {
    (void)inspect(name);
    FAIL("it was read");
  } catch (const error& refused) {
    CHECK(refused.code().value() == EPERM);
  }
}

TEST_CASE("an arena with an invalid header is rejected") {
  const auto a = arena::create(tiny);
  auto* words = static_cast<std::uint32_t*>(::shmat(a->where().segment.id, nullptr, 0));
  REQUIRE(words != reinterpret_cast<void*>(-1));
  words[12] ^= 1;  // a part of the header that its checksum covers
  CHECK_THROWS_AS((void)inspect(a->where().segment), corrupted);
  words[12] ^= 1;
  CHECK(inspect(a->where().segment).has_value());
  words[0] += 1;  // the layout's version
  CHECK_THROWS_AS((void)inspect(a->where().segment), corrupted);
  words[0] = 0;  // being made
  CHECK(!inspect(a->where().segment).has_value());
  words[0] = layout_version;
  ::shmdt(words);
}
