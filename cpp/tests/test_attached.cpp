#include <doctest.h>

#include <pthread.h>

#include <cstdlib>
#include <optional>
#include <thread>

#include <sharedmem/home.hpp>

#include "arena_tools.hpp"
#include "registry.hpp"

using namespace sharedmem;

// Foreign arenas: who keeps one attached, and that it is left afterwards. The owner of the foreign arena tells how
// many processes are in it. Each test's processes have arenas of their own; this one has none.

namespace {

struct message {
  claim what;
  char where[160] = {};

  locator arena_of_sender() const { return *parse_locator(where); }
};

void start_anew() {
  ::unsetenv("SHAREDMEM_ARENA");
  ::setenv("SHAREDMEM_ARENA_SIZE", "32MiB", 1);
  ::alarm(60);  // ends what waits for ever
}

/// A process with an array that others load by `sent`, as often as they like.
class owner {
 public:
  owner()
      : process_([this] {
          start_anew();
          allocation x = make(home(), 5000, 1);
          message m{home().share(x.ref, false), {}};
          home_locator().copy(m.where, sizeof m.where - 1);
          answers_.put(m);
          while (requests_.get<char>() == 'n') answers_.put(home().statistics().participants);
          return 0;
        }),
        sent(answers_.get<message>()) {}

  /// Living processes in its arena, itself included.
  std::uint32_t participants() {
    requests_.put('n');
    return answers_.get<std::uint32_t>();
  }

 private:
  channel requests_, answers_;
  child process_;

 public:
  const message sent;
};

allocation load(const message& m) { return acquire(m.arena_of_sender(), m.what); }

/// Runs `work(owner)` in a process that has a home arena; its value.
template <class Work>
int beside_an_owner(Work&& work) {
  owner other;
  return child([&] {
           start_anew();
           home();
           return work(other);
         })
      .wait();
}

int find_number(const arena* wanted) {
  int found = 0;
  const attached_arenas all;
  for (const arena* each : all) found += each == wanted ? 1 : 0;
  return found;
}

}  // namespace

TEST_CASE("a foreign arena is left with the last array in it") {
  CHECK(beside_an_owner([](owner& other) {
          allocation a = load(other.sent), b = load(other.sent);
          if (other.participants() != 2 || attached_arenas().size() != 2) return 1;
          release(a.ref);
          if (other.participants() != 2) return 2;
          release(b.ref);
          return other.participants() == 1 && attached_arenas().size() == 1 ? 0 : 3;
        }) == 0);
}

TEST_CASE("a foreign arena stays while an attached_arenas has it, and is left afterwards") {
  CHECK(beside_an_owner([](owner& other) {
          allocation a = load(other.sent);
          const arena* foreign = a.ref.home;
          {
            const attached_arenas first;
            std::optional<attached_arenas> second(std::in_place);
            release(a.ref);
            for (arena* each : first) each->check();
            if (first.size() != 2 || first[0].statistics().participants == 0) return 1;
            if (find_number(foreign) != 0) return 2;  // those who come later do not keep it longer
            second.reset();
            if (other.participants() != 2) return 3;
          }
          return other.participants() == 1 ? 0 : 4;
        }) == 0);
}

TEST_CASE("a foreign arena stays although another one is left meanwhile") {
  owner second;
  CHECK(beside_an_owner([&second](owner& first) {
          allocation a = load(first.sent);
          {
            const attached_arenas all;
            release(a.ref);
            allocation b = load(second.sent);
            release(b.ref);
            if (second.participants() != 1 || first.participants() != 2) return 1;
          }
          return first.participants() == 1 ? 0 : 2;
        }) == 0);
}

TEST_CASE("while a foreign arena waits to be left its arrays can be loaded again") {
  CHECK(beside_an_owner([](owner& other) {
          allocation a = load(other.sent);
          const arena* foreign = a.ref.home;
          {
            const attached_arenas all;
            release(a.ref);
            if (arena_of(a.data) != nullptr) return 1;
            a = load(other.sent);
            if (a.ref.home != foreign || arena_of(a.data) != foreign || find_number(foreign) != 1) return 2;
          }
          if (other.participants() != 2 || !filled(a.data, 5000, 1)) return 3;
          release(a.ref);
          if (other.participants() != 1) return 4;
          // A load that fails makes no array.
          a = load(other.sent);
          {
            const attached_arenas all;
            release(a.ref);
            message stale = other.sent;
            ++stale.what.generation;
            try {
              (void)load(stale);
              return 5;
            } catch (const stale_handle&) {
            }
          }
          return other.participants() == 1 ? 0 : 6;
        }) == 0);
}

TEST_CASE("a foreign arena is not left if something in it was acquired while it waited for that") {
  CHECK(beside_an_owner([](owner& other) {
          allocation a = load(other.sent);
          arena* foreign = a.ref.home;
          {
            const attached_arenas all;
            release(a.ref);
            if (arena_of(a.data) != nullptr) return 1;
            a = foreign->acquire(other.sent.what);  // not by way of the registry, which would show it again
          }
          if (arena_of(a.data) != foreign || other.participants() != 2 || !filled(a.data, 5000, 1)) return 2;
          release(a.ref);
          return other.participants() == 1 ? 0 : 3;
        }) == 0);
}

TEST_CASE("a foreign arena stays while threads look for an address, and the last of them leaves it") {
  CHECK(beside_an_owner([](owner& other) {
          allocation a = load(other.sent);
          std::optional<reading> first(std::in_place), second(std::in_place);
          release(a.ref);
          if (other.participants() != 2) return 1;
          first.reset();
          if (other.participants() != 2) return 2;
          second.reset();
          return other.participants() == 1 ? 0 : 3;
        }) == 0);
}

TEST_CASE("a foreign arena stays for a message that was sent on, and is left when that was read") {
  CHECK(beside_an_owner([](owner& other) {
          allocation a = load(other.sent);
          message on = other.sent;
          on.what = a.ref.home->share(a.ref, true);
          release(a.ref);
          if (other.participants() != 2) return 1;
          const auto read = [&on] {
            ::unsetenv("SHAREDMEM_ARENA");
            allocation got = load(on);
            return filled(got.data, 5000, 1) ? 0 : 1;
          };
          channel go;
          child reader([&] { return go.get<char>() == 'g' ? read() : 2; });
          go.put('g');
          if (reader.wait() != 0) return 2;
          (void)attached_arenas();
          return other.participants() == 1 ? 0 : 3;
        }) == 0);
}

TEST_CASE("a forked child does not keep what only its parent's threads keep") {
  CHECK(beside_an_owner([](owner& other) {
          allocation a = load(other.sent);
          const attached_arenas all;
          release(a.ref);
          channel done;
          child forked([&] {
            done.put('d');
            sleep_for_ever();
            return 0;
          });
          (void)done.get<char>();
          return other.participants() == 2 ? 0 : 1;  // the owner and the parent
        }) == 0);
}

TEST_CASE("addresses are found before there is a home arena") {
  owner other;
  child reader([&] {
    start_anew();
    ::setenv("SHAREDMEM_ARENA", "new", 1);
    allocation a = load(other.sent);
    if (home_if_any() != nullptr || arena_of(a.data) != a.ref.home) return 1;
    release(a.ref);
    return arena_of(a.data) == nullptr ? 0 : 2;
  });
  CHECK(reader.wait() == 0);
}

namespace {

message by_handlers;
allocation inherited;

void make_and_drop() {
  allocation mine = home().allocate(40000);
  release(mine.ref);
  allocation foreign = load(by_handlers);
  release(foreign.ref);
}

void drop_inherited() {
  make_and_drop();
  release(inherited.ref);
}

}  // namespace

TEST_CASE("fork handlers of a program may use arrays") {
  owner other;
  child program([&] {
    start_anew();
    by_handlers = other.sent;
    ::pthread_atfork(make_and_drop, make_and_drop, drop_inherited);
    inherited = make(home(), 40000, 3);
    if (child([] { return home().statistics().live_blocks == 0 ? 0 : 1; }).wait() != 0) return 1;
    if (!filled(inherited.data, 40000, 3)) return 2;
    release(inherited.ref);
    return home().statistics().live_blocks == 0 && other.participants() == 1 ? 0 : 3;
  });
  CHECK(program.wait() == 0);
}

TEST_CASE("forwarding messages does not choose a home arena") {
  owner sender, tree;
  child passes([&] {
    start_anew();
    (void)note_read(sender.sent.arena_of_sender(), sender.sent.what);
    read_elsewhere(sender.sent.arena_of_sender(), 1);
    if (home_if_any() != nullptr) return 1;
    offer(to_text(tree.sent.arena_of_sender()));  // as a multiprocessing child does before its first array
    allocation a = load(sender.sent);
    return home().where().uuid == tree.sent.arena_of_sender().uuid && filled(a.data, 5000, 1) ? 0 : 2;
  });
  CHECK(passes.wait() == 0);
  child loads([&] {
    start_anew();
    (void)note_read(sender.sent.arena_of_sender(), sender.sent.what);
    allocation a = load(sender.sent);
    return home_if_any() == a.ref.home && filled(a.data, 5000, 1) ? 0 : 1;
  });
  CHECK(loads.wait() == 0);
}

TEST_CASE("a foreign arena is left although a call looks for a message that is no longer in flight") {
  CHECK(beside_an_owner([](owner& other) {
          allocation a = load(other.sent);
          const locator where = a.ref.home->where();
          {
            const attached_arenas all;
            release(a.ref);
            if (stands_for(where, {other.sent.what.block, 0, 0, 0})) return 1;
          }
          return other.participants() == 1 ? 0 : 2;
        }) == 0);
}

TEST_CASE("a foreign arena is left when the last message that kept it has been given up") {
  CHECK(beside_an_owner([](owner& other) {
          allocation a = load(other.sent);
          const locator where = a.ref.home->where();
          const claim on = a.ref.home->share(a.ref, true);
          release(a.ref);
          if (other.participants() != 2) return 1;
          if (!give_back_lost(where, on)) return 2;
          return other.participants() == 1 ? 0 : 3;
        }) == 0);
}
