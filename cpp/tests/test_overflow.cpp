#include <doctest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <sharedmem/arena.hpp>

#include "arena_tools.hpp"
#include "crowd.hpp"

using namespace sharedmem;

// More processes than slots: the children that got none share the overflow slot. They may use and send what
// they inherited, and what the others hold is none of their business.

namespace {

bool is_refused(arena& a) {
  try {
    (void)a.allocate(100);
  } catch (const no_memory& full) {
    return std::string(full.what()).find("process slots") != std::string::npos;
  }
  return false;
}

}  // namespace

TEST_CASE("children without a slot use what they inherited, and make nothing new") {
  const auto a = arena::create(tiny);
  std::optional<crowd> others(*a);
  CHECK(others->size() >= 253);
  allocation x = make(*a, 5000, 1);  // held by this process and those in an overflow slot
  channel ready, go;
  std::vector<std::unique_ptr<child>> late;
  for (int i = 0; i < 40; ++i)
    late.push_back(fork_from(*a, [&, i] {
      if (!filled(x.data, 5000, 1)) return 1;
      if (!is_refused(*a)) return 2;
      auto grandchild = fork_from(*a, [&] { return filled(x.data, 5000, 1) && is_refused(*a) ? 0 : 1; });
      if (grandchild->wait() != 0) return 3;
      if (i >= 20) a->release(x.ref);  // the others' references hang on the same bit
      ready.put('r');
      (void)go.get<char>();
      return i >= 20 || filled(x.data, 5000, 1) ? 0 : 4;
    }));
  for (int i = 0; i < 40; ++i) (void)ready.get<char>();
  a->release(x.ref);
  (void)a->collect(false);
  std::vector<allocation> more;
  for (std::uint64_t i = 0; i < 20; ++i) more.push_back(make(*a, 5000, i + 2));
  for (int i = 0; i < 40; ++i) go.put('g');
  for (const auto& one : late) CHECK(one->wait() == 0);
  for (allocation& y : more) a->release(y.ref);
  others.reset();
  nothing_left(*a, 2);
}

TEST_CASE("what a process without a slot sent outlives it, killed or not") {
  const auto a = arena::create(tiny);
  allocation x = make(*a, 5000, 1);
  std::optional<crowd> others(*a);
  channel sent;
  auto sender = fork_from(*a, [&] {
    sent.put(a->share(x.ref, true));
    sent.put(a->share(x.ref, true));
    sleep_for_ever();
    return 0;
  });
  const claim first = sent.get<claim>(), second = sent.get<claim>();
  a->release(x.ref);
  sender->kill();
  others->kill(3);  // room to load, in a child as well
  (void)a->collect(false);
  CHECK(a->statistics().leases == 2);
  CHECK(fork_from(*a, [&] {
          const allocation got = a->acquire(first);
          return filled(got.data, 5000, 1) ? 0 : 1;
        })->wait() == 0);
  allocation got = a->acquire(second);
  CHECK(filled(got.data, 5000, 1));
  a->release(got.ref);
  others.reset();
  nothing_left(*a, 2);
}

TEST_CASE("what a process without a slot takes back is freed when the overflow is over") {
  const auto a = arena::create(tiny);
  std::optional<crowd> others(*a);
  channel go, done;
  auto late = fork_from(*a, [&] {
    (void)go.get<char>();
    const std::uint64_t revoked = a->revoke(0);
    (void)a->collect(true);
    done.put(revoked);
    sleep_for_ever();
    return 0;
  });
  others.reset();  // `late` stays in its overflow slot as long as it makes nothing
  (void)a->collect(false);
  allocation x = make(*a, 3 * mib, 1);
  (void)a->share(x.ref, true);
  a->release(x.ref);
  go.put('g');
  CHECK(done.get<std::uint64_t>() == 1);
  CHECK(a->statistics().leases == 0);
  late->kill();
  nothing_left(*a, 2);
}

TEST_CASE("a process leaves the overflow as soon as there is a slot") {
  const auto a = arena::create(tiny);
  allocation x = make(*a, 5000, 1);
  std::optional<crowd> others(*a);
  channel go, made;
  auto late = fork_from(*a, [&] {
    if (!is_refused(*a)) return 1;
    made.put(claim{});
    (void)go.get<char>();
    const allocation own = make(*a, 5000, 2);
    const allocation got = a->acquire(a->share(x.ref, false));
    if (!filled(got.data, 5000, 1)) return 2;
    made.put(a->share(own.ref, false));
    (void)go.get<char>();
    return filled(own.data, 5000, 2) && filled(x.data, 5000, 1) ? 0 : 3;
  });
  (void)made.get<claim>();
  others->kill(1);
  go.put('g');
  const claim theirs = made.get<claim>();
  allocation got = a->acquire(theirs);
  CHECK(filled(got.data, 5000, 2));
  a->release(x.ref);
  others.reset();
  for (int pass = 0; pass < 2; ++pass)
    (void)a->collect(true);  // the overflow is over, x is held all the same
  CHECK(a->statistics().shared_blocks == 2);
  go.put('g');
  CHECK(late->wait() == 0);
  a->release(got.ref);
  nothing_left(*a, 2);
}

TEST_CASE("a process that joins a full arena repairs it first, before it has a slot") {
  const auto a = arena::create(tiny);
  std::optional<crowd> others(*a);
  others->kill(1);
  channel made;
  auto holder = fork_from(*a, [&] {
    const allocation own = make(*a, 3 * mib, 1);
    made.put(a->share(own.ref, false));
    sleep_for_ever();
    return 0;
  });
  const claim held = made.get<claim>();
  const locator where = a->where();
  channel go, joined;
  child stranger([&] {  // the handlers are not called: nothing of `a` is used here
    bool refused = false;
    try {
      (void)arena::attach(where);
    } catch (const no_memory&) {
      refused = true;
    }
    joined.put(refused);
    (void)go.get<char>();
    const auto own = arena::attach(where);
    try {
      (void)own->acquire(held);
      return 1;
    } catch (const stale_handle&) {
    }
    return own->statistics().shared_blocks == 0 ? 0 : 2;
  });
  CHECK(joined.get<bool>());
  holder->kill();
  go.put('g');
  CHECK(stranger.wait() == 0);
  others.reset();
  nothing_left(*a, 2);
}
