// Two processes on one block: the child gets a handle's bytes and nothing else.
#include <sys/wait.h>
#include <unistd.h>
#include <cstdio>

#include <sharedmem/home.hpp>

int main() {
  sharedmem::allocation a = sharedmem::home().allocate(1000);
  const sharedmem::claim c = a.ref.home->share(a.ref, false);
  const sharedmem::locator where = a.ref.home->where();
  if (fork() == 0) {
    sharedmem::allocation b = sharedmem::acquire(where, c);
    b.data[999] = std::byte{7};
    sharedmem::release(b.ref);
    _exit(0);
  }
  wait(nullptr);
  std::printf("%d\n", std::to_integer<int>(a.data[999]));
  sharedmem::release(a.ref);
}
