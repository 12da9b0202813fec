/// Fork handlers and the environment.
#include <pthread.h>
#include <cerrno>
#include <cstdlib>

#include <sharedmem/error.hpp>

#include "os/fork_handlers.hpp"

namespace sharedmem {

void at_fork(void (*prepare)(), void (*parent)(), void (*child)()) {
  if (const int failed = ::pthread_atfork(prepare, parent, child); failed != 0)
    throw error(failed, "pthread_atfork");
}

const char* secure_environment(const char* name) noexcept { return ::secure_getenv(name); }

void set_environment(const char* name, const std::string& value) {
  if (::setenv(name, value.c_str(), 1) != 0) throw error(errno, "setenv", name);
}

}  // namespace sharedmem
