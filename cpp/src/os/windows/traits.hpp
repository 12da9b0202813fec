/// \file
/// Windows: what the layers above must know of it when they are compiled.
#pragma once

#include <sharedmem/segment.hpp>

namespace sharedmem::os {

inline constexpr backing segment_kinds[] = {backing::section};
inline constexpr backing usual_kind = backing::section;
inline constexpr bool memory_is_promised = true;  // a section of the paging file is reserved, then committed
inline constexpr bool discarded_is_zero = false;  // DiscardVirtualMemory, MEM_RESET
inline constexpr bool has_fork = false;
inline constexpr bool keys_can_be_let_go = false;  // a name goes with the last handle, never before

}  // namespace sharedmem::os
