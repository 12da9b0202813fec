#pragma once

/// What the list of attached arenas needs of the system: fork handlers and the environment.
#include <string>

namespace sharedmem {

/// pthread_atfork(3).
void at_fork(void (*prepare)(), void (*parent)(), void (*child)());
/// secure_getenv(3): nothing in a set-user-ID program.
const char* secure_environment(const char* name) noexcept;
void set_environment(const char* name, const std::string& value);

}  // namespace sharedmem
