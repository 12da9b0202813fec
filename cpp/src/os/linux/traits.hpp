/// \file
/// Linux: what the layers above must know of it when they are compiled.
#pragma once

#include <sharedmem/segment.hpp>

namespace sharedmem::os {

inline constexpr backing segment_kinds[] = {backing::sysv, backing::memfd};
inline constexpr bool memory_is_promised = false;
inline constexpr bool discarded_is_zero = true;
inline constexpr bool has_fork = true;
inline constexpr bool keys_can_be_let_go = true;

}  // namespace sharedmem::os
