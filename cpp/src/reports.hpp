#pragma once

/// What both ways of looking at an arena have in common: from within (reports.cpp), and from outside
/// (inspect.cpp).
#include <cstdint>

#include <sharedmem/arena.hpp>
#include "shared/layout.hpp"

namespace sharedmem {

/// The participant in a slot that is not empty. `gone`: its process is known to be dead, or to run another
/// program.
participant_report report_of(std::uint32_t slot, const participant_entry& entry, const slot_word& seen,
                             bool gone) noexcept;

}  // namespace sharedmem
