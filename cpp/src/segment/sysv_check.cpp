#include "segment/sysv_check.hpp"

#include <cerrno>
#include <string>

#include <sharedmem/error.hpp>

namespace sharedmem {

bool sysv_has_gone(int id) noexcept {
  os::sysv_status status;
  const int code = os::sysv_look(id, status);
  return code == EINVAL || code == EIDRM;
}

os::sysv_status check_sysv(int id, std::size_t bytes) {
  const auto name = [id] { return "segment " + std::to_string(id); };
  os::sysv_status status;
  if (const int code = os::sysv_look(id, status); code == EINVAL || code == EIDRM) {
    throw stale_handle(name() + " has gone");
  } else if (code != 0) {
    throw error(code, "shmctl(IPC_STAT)", "id " + std::to_string(id));
  }
  const std::uint32_t user = os::effective_user();
  if (status.owner != user || status.creator != user) {
    const std::uint32_t other = status.owner != user ? status.owner : status.creator;
    throw error(
        EPERM, "attach",
        "id " + std::to_string(id) + " of user " + std::to_string(other) + ", not " + std::to_string(user));
  }
  if (status.mode != 0600 || !status.removed) {
    throw stale_handle(name() + " is not one of this library's");
  }
  if (status.bytes != bytes) {
    throw stale_handle(name() + " has " + std::to_string(status.bytes) + " bytes, not " +
                       std::to_string(bytes));
  }
  return status;
}

}  // namespace sharedmem
