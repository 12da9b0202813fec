#include <doctest.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sharedmem/home.hpp>

using namespace sharedmem;

TEST_CASE("a block is held elsewhere by other processes and by messages") {
  allocation a = home().allocate(1000);
  CHECK(!home().held_elsewhere(a.ref));
  const claim c = home().share(a.ref, false);
  CHECK(!home().held_elsewhere(a.ref));
  allocation again = home().acquire(c);
  CHECK(!home().held_elsewhere(a.ref));
  release(again.ref);

  const claim message = home().share(a.ref, true);
  CHECK(home().held_elsewhere(a.ref));
  home().give_back(message);
  CHECK(!home().held_elsewhere(a.ref));

  const pid_t child = fork();
  if (child == 0) {
    for (;;) pause();
  }
  CHECK(home().held_elsewhere(a.ref));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  home().collect(false);
  CHECK(!home().held_elsewhere(a.ref));
  release(a.ref);
}
