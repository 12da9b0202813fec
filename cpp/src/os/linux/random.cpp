/// \file
/// Linux: random bytes.
#include <sys/random.h>

#include <cerrno>
#include <string>

#include <sharedmem/error.hpp>

#include "os/identity.hpp"
#include "os/linux/proc.hpp"

namespace sharedmem {

void random_bytes(void* out, std::size_t bytes) {
  auto* to = static_cast<char*>(out);
  std::size_t done = 0;
  while (done < bytes) {
    const ssize_t got = ::getrandom(to + done, bytes - done, 0);
    if (got > 0) {
      done += static_cast<std::size_t>(got);
    } else if (errno != EINTR) {
      break;
    }
  }
  if (done == bytes) return;
  const int code = errno;  // ENOSYS, or a sandbox
  const std::size_t left = bytes - done;
  if (os::read_file("/dev/urandom", to + done, left).size() != left) {
    throw error(code, "getrandom", std::to_string(bytes) + " bytes");
  }
}

}  // namespace sharedmem
