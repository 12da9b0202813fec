/// \file
/// The seam: all that this library needs of the operating system, by purpose. A port is a folder beside linux/
/// that implements these headers; only there are system calls, and names of the system's own files.
///
/// | header           | purpose                                                                            |
/// | ---------------- | ---------------------------------------------------------------------------------- |
/// | traits.hpp       | what a system has and what it demands, as constants                                |
/// | segment.hpp      | make, find, attach and detach kernel objects of shared memory                      |
/// | files.hpp        | regular files, mapped as shared memory                                             |
/// | pages.hpp        | give pages back, forbid them, make them present, request huge ones                 |
/// | census.hpp       | how many processes have an arena attached                                          |
/// | channel.hpp      | what a pipe or socket says about its other end                                     |
/// | identity.hpp     | who is this process, is that one alive, does it have a segment; random bytes       |
/// | memory.hpp       | how much memory is available, and which limit bounds it                            |
/// | machine.hpp      | private pages, barriers over threads, the clock, the size of the machine           |
/// | threads.hpp      | work divided among threads for the length of one call; how many cores there are    |
/// | fork_handlers.hpp| fork handlers, the environment                                                     |
/// | lingering.hpp    | a small process that keeps segments after the end of this one                      |
///
/// The public robust_mutex.hpp, futex.hpp and `sweep_orphans` of segment.hpp are implemented there, too.
///
/// What is `noexcept` allocates no memory. What is not throws `sharedmem::error` with an errno value, the
/// system's own call, its object and sizes, or `stale_handle`; nothing is left behind then.
#pragma once

#include "os/census.hpp"
#include "os/channel.hpp"
#include "os/files.hpp"
#include "os/fork_handlers.hpp"
#include "os/identity.hpp"
#include "os/machine.hpp"
#include "os/memory.hpp"
#include "os/pages.hpp"
#include "os/segment.hpp"
#include "os/threads.hpp"
#include "os/traits.hpp"
