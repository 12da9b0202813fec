#pragma once

/// The arena of names among those that this process has attached.
#include <cstdint>
#include <memory>
#include <mutex>

#include <sharedmem/arena.hpp>
#include <sharedmem/handle.hpp>

namespace sharedmem {

/// One thread of a process looks for the arena of names, or makes it, at a time. fork(2) waits for it.
std::unique_lock<std::mutex> alone_in_meeting();

/// The attached arena of names of this user and namespace, or nullptr: it stays attached from now on. An arena that
/// is attached and open is the only one (doc/model/host.pml).
arena* kept_host(std::uint64_t name_space) noexcept;
/// Takes over an arena that this process has just made; it stays attached. Throws no_memory.
arena& keep(std::unique_ptr<arena> host);
/// Attaches the arena if it is not; it stays attached. Throws what arena::attach throws, and no_memory.
arena& keep(const locator& where);

}  // namespace sharedmem
