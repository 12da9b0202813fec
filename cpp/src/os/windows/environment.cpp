/// Windows: the environment variables of the system. In addition, each C runtime in a process has a copy of its own.
#include <stdlib.h>

#include <mutex>
#include <set>

#include "os/fork_handlers.hpp"
#include "os/windows/system.hpp"

namespace sharedmem {

void at_fork(void (*)(), void (*)(), void (*)()) {}  // there is no fork

// The caller gets a pointer, but the system copies a value into the caller's memory. So this function keeps every value
// that it has ever returned.
const char* secure_environment(const char* name) noexcept {
  static std::mutex lock;
  static auto* const values = new std::set<std::string>;
  try {
    const std::wstring key = os::wide(name);
    std::wstring value(256, L'\0');
    for (;;) {
      const DWORD length =
          ::GetEnvironmentVariableW(key.c_str(), value.data(), static_cast<DWORD>(value.size()));
      if (length == 0) return nullptr;  // unset or empty: callers do not distinguish the two
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

// Child processes inherit the system's variables, but getenv in this program reads the copy of its C runtime: set both. The
// runtime sets the system's as well, but takes the text for one of the system's code page. So the system's is set last.
void set_environment(const char* name, const std::string& value) {
  ::_putenv_s(name, value.c_str());
  if (!::SetEnvironmentVariableW(os::wide(name).c_str(), os::wide(value).c_str()))
    throw os::system_error_of(::GetLastError(), "SetEnvironmentVariable", name);
}

}  // namespace sharedmem
