#include "shared/own_slot.hpp"

#include <new>

#include <sharedmem/error.hpp>

#include "os/machine.hpp"

namespace sharedmem {

void own_slot::open() {
  void* p = map_private(sizeof(page));
  if (p == nullptr) throw no_memory("cannot allocate a page of private memory for a participant of an arena");
  wipe_on_fork(p, sizeof(page));  // a kernel without it: a child made by raw clone must not use the library
  page_ = new (p) page;  // default-initialised: the zeros stay
}

own_slot::~own_slot() {
  if (page_ != nullptr) unmap_private(page_, sizeof(page));
}

own_slot::turn::turn(own_slot& of) noexcept : taken_(of.page_->turn_taken) {
  for (unsigned round = 0; taken_.exchange(1, std::memory_order_acquire) != 0;) let_others_run(round++);
}

}  // namespace sharedmem
