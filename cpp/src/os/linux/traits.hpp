/// \file
/// Linux: what the layers above must know of it when they are compiled.
#pragma once

#include <sharedmem/segment.hpp>

namespace sharedmem::os {

// A program on Android that makes one of the four calls of System V memory is ended by a signal (SIGSYS) of its
// filter of system calls, so asking and falling back is not possible: there the calls are not compiled. Other systems
// of this kind can be built for with -DSHAREDMEM_NO_SYSV, and so can this behaviour be tested.
#if defined(__ANDROID__) || defined(SHAREDMEM_NO_SYSV)
inline constexpr bool has_sysv = false;
inline constexpr backing segment_kinds[] = {backing::memfd};
#else
inline constexpr bool has_sysv = true;
inline constexpr backing segment_kinds[] = {backing::sysv, backing::memfd};
#endif
inline constexpr backing usual_kind = backing::sysv;
inline constexpr bool memory_is_promised = false;
inline constexpr bool discarded_is_zero = true;
inline constexpr bool has_fork = true;
inline constexpr bool wakes_are_counted = true;
inline constexpr bool keys_can_be_let_go = true;

}  // namespace sharedmem::os
