/// Fork handlers, the environment, and the process that lingers.
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <ctime>

#include <sharedmem/error.hpp>

#include "os/fork_handlers.hpp"

namespace sharedmem {
namespace {

/// Handlers must not run: the child is to take this process's slot, not one of its own.
long fork_without_handlers() noexcept {
#ifdef SYS_fork
  return ::syscall(SYS_fork);
#else  // newer architectures; on older ones the order of clone's parameters differs (clone(2), NOTES)
  return ::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr);
#endif
}

/// Closes the descriptors from `first` to `last`.
void close_all(unsigned first, unsigned last) noexcept {
#ifdef SYS_close_range
  if (::syscall(SYS_close_range, first, last, 0u) == 0) return;
#endif
  const long end = std::min<long>(last, ::sysconf(_SC_OPEN_MAX) - 1);
  for (long fd = first; fd <= end; ++fd) ::close(static_cast<int>(fd));
}

}  // namespace

void at_fork(void (*prepare)(), void (*parent)(), void (*child)()) {
  if (const int failed = ::pthread_atfork(prepare, parent, child); failed != 0)
    throw error(failed, "pthread_atfork");
}

const char* secure_environment(const char* name) noexcept { return ::secure_getenv(name); }

void set_environment(const char* name, const std::string& value) {
  if (::setenv(name, value.c_str(), 1) != 0) throw error(errno, "setenv", name);
}

bool fork_to_linger(std::span<const int> kept) noexcept {
  const long middle = fork_without_handlers();
  if (middle < 0) return false;
  if (middle > 0) {
    while (::waitpid(static_cast<pid_t>(middle), nullptr, 0) < 0 && errno == EINTR) {
    }
    return false;
  }
  ::setsid();
  if (fork_without_handlers() != 0) ::_exit(0);
  unsigned next = 0;
  for (const int fd : kept) {
    const auto number = static_cast<unsigned>(fd);
    if (number > next) close_all(next, number - 1);
    next = number + 1;
  }
  close_all(next, INT_MAX);
  return true;
}

void sleep_ms(unsigned ms) noexcept {
  const timespec t{static_cast<time_t>(ms / 1000), static_cast<long>(ms % 1000) * 1'000'000};
  ::nanosleep(&t, nullptr);
}

void exit_now() noexcept { ::_exit(0); }

}  // namespace sharedmem
