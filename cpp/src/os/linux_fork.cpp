/// Fork handlers, the environment, and the process that lingers.
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <ctime>

#include <sharedmem/error.hpp>

#include "../fork_handlers.hpp"

namespace sharedmem {

void at_fork(void (*prepare)(), void (*parent)(), void (*child)()) {
  if (const int failed = ::pthread_atfork(prepare, parent, child); failed != 0)
    throw error(failed, "pthread_atfork");
}

const char* secure_environment(const char* name) noexcept { return ::secure_getenv(name); }

void set_environment(const char* name, const std::string& value) {
  if (::setenv(name, value.c_str(), 1) != 0) throw error(errno, "setenv", name);
}

bool fork_to_linger() noexcept {
  // clone(2) without flags but SIGCHLD is fork(2) without handlers, which must not run: the child is to
  // take this process's slot, not one of its own.
  const long middle = ::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr);
  if (middle < 0) return false;
  if (middle > 0) {
    while (::waitpid(static_cast<pid_t>(middle), nullptr, 0) < 0 && errno == EINTR) {
    }
    return false;
  }
  ::setsid();
  if (::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr) != 0) ::_exit(0);
#ifdef SYS_close_range
  if (::syscall(SYS_close_range, 0u, ~0u, 0u) == 0) return true;
#endif
  for (long fd = ::sysconf(_SC_OPEN_MAX) - 1; fd >= 0; --fd) ::close(static_cast<int>(fd));
  return true;
}

void sleep_ms(unsigned ms) noexcept {
  const timespec t{static_cast<time_t>(ms / 1000), static_cast<long>(ms % 1000) * 1'000'000};
  ::nanosleep(&t, nullptr);
}

void exit_now() noexcept { ::_exit(0); }

}  // namespace sharedmem
