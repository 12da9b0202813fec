#pragma once

/// What home.cpp asks of the system: fork handlers, the environment, a process that lingers.
#include <span>
#include <string>

namespace sharedmem {

/// pthread_atfork(3).
void at_fork(void (*prepare)(), void (*parent)(), void (*child)());
/// secure_getenv(3): nothing in a set-user-ID program.
const char* secure_environment(const char* name) noexcept;
void set_environment(const char* name, const std::string& value);
/// Forks, without fork handlers, a process that is nobody's child and nobody's reader: its own session,
/// every descriptor closed but those of `kept`, in ascending order. True in that process; false in the
/// caller, also where fork failed.
bool fork_to_linger(std::span<const int> kept) noexcept;
void sleep_ms(unsigned ms) noexcept;
[[noreturn]] void exit_now() noexcept;

}  // namespace sharedmem
