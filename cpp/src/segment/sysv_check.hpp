/// \file
/// The kernel's record of a System V segment, checked before the segment is attached by id.
#pragma once

#include <cstddef>

#include "os/os.hpp"

namespace sharedmem {

/// The first bytes of a census: tells it from another segment of a page.
inline constexpr char census_magic[16] = "sharedmem count";

/// What the kernel says of segment `id`.
/// \throws sharedmem::stale_handle  it has gone, or is none of this library's: no mode 0600, not
///         marked for removal, or not of `bytes` bytes.
/// \throws sharedmem::error         EPERM: another user's; or what the kernel refused.
os::sysv_status check_sysv(int id, std::size_t bytes);

/// Whether the segment of `id` has gone: by the kernel's record, since an attach is refused with
/// EINVAL for other reasons, too.
bool sysv_has_gone(int id) noexcept;

}  // namespace sharedmem
