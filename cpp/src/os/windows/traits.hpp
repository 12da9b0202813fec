/// \file
/// Windows: the properties of this system that the layers above need to know at compile time.
#pragma once

#include <sharedmem/segment.hpp>

namespace sharedmem::os {

inline constexpr backing segment_kinds[] = {backing::section};
inline constexpr backing usual_kind = backing::section;
inline constexpr bool memory_is_promised = true;  // pages of a section must be committed before they are used
inline constexpr bool discarded_is_zero =
    false;  // DiscardVirtualMemory and MEM_RESET leave undefined contents
inline constexpr bool has_fork = false;
inline constexpr bool wakes_are_counted = false;  // WakeByAddressSingle and WakeByAddressAll return nothing
inline constexpr bool keys_can_be_let_go =
    false;  // a name exists exactly as long as the section's last handle

}  // namespace sharedmem::os
