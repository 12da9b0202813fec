/// Windows: the environment, as the system has it. Each C runtime of a process has a copy of its own besides.
#include <stdlib.h>

#include <mutex>
#include <set>

#include "os/fork_handlers.hpp"
#include "os/windows/system.hpp"

namespace sharedmem {

void at_fork(void (*)(), void (*)(), void (*)()) {}  // nobody forks

// A pointer is returned, and there is no memory of the system to point to: each value that was ever asked for is kept.
const char* secure_environment(const char* name) noexcept {
  static std::mutex lock;
  static auto* const values = new std::set<std::string>;
  try {
    const std::wstring key = os::wide(name);
    std::wstring value(256, L'\0');
    for (;;) {
      const DWORD length =
          ::GetEnvironmentVariableW(key.c_str(), value.data(), static_cast<DWORD>(value.size()));
      if (length == 0) return nullptr;  // there is none, or it is empty: the same to who asks
      if (length < value.size()) {
        value.resize(length);
        break;
      }
      value.resize(length);
    }
    const std::lock_guard alone(lock);
    return values->insert(os::narrow(value)).first->c_str();
  } catch (...) {
    return nullptr;
  }
}

// New processes get the system's variables; getenv in this program looks into its C runtime's.
void set_environment(const char* name, const std::string& value) {
  if (!::SetEnvironmentVariableW(os::wide(name).c_str(), os::wide(value).c_str()))
    throw os::system_error_of(::GetLastError(), "SetEnvironmentVariable", name);
  ::_putenv_s(name, value.c_str());
}

}  // namespace sharedmem
