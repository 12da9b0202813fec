#pragma once

/// The arena in which a user's names lie: one for each user, IPC namespace, layout version and SHAREDMEM_NAMESPACE.
/// doc/model/host.pml has the steps by which processes find it, or make it, and why there are never two.
#include <cstdint>

#include <sharedmem/names.hpp>

#include "kept.hpp"

namespace sharedmem {

/// The arena of those names, attached or made now. Threads: any; one looks or makes at a time.
/// \throws sharedmem::error  ENOSYS, EPERM: there is no System V memory here; ENOMEM, ENOSPC, ...
/// \throws no_memory         this process has too many arenas, or that arena too many processes.
host_use host_arena(name_space of = name_space::now());
/// The same, or none: makes none.
host_use find_host_arena(name_space of = name_space::now());

/// The number from which the key of the arena follows while it is made. `attempt`: 0; others while that key is taken.
std::uint32_t host_key_number(std::uint64_t name_space, std::uint32_t attempt) noexcept;

/// The tag of the arena's segment. By it a process looks at the arenas only that are almost certainly the wanted one:
/// it has to attach what it looks at, and the arena of other names may be larger than the address space it has left.
std::uint32_t host_tag(std::uint64_t name_space) noexcept;

}  // namespace sharedmem
