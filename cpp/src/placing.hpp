#pragma once

/// Where this thread's new blocks come from while a `placing` of names.hpp lives.
namespace sharedmem {

class arena;

/// nullptr: the home arena. Read on the way to each new block: its initializer is a constant, so that this is a load.
extern constinit thread_local arena* placed_in;

}  // namespace sharedmem
