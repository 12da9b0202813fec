#pragma once

namespace sharedmem {

/// While one lives no arena is deleted that could be found before: for arena_of, which takes no lock. It has to
/// be short, since arenas that are to be left wait for a moment without any. Threads: of one thread.
class reading {
 public:
  reading() noexcept;
  ~reading();
  reading(const reading&) = delete;
  reading& operator=(const reading&) = delete;
};

}  // namespace sharedmem
