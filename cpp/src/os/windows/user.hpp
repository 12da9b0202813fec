/// \file
/// Windows: the user of this process, and objects that are for this user alone. Private to this folder.
#pragma once

#include "os/windows/system.hpp"

namespace sharedmem::os {

/// Security attributes of a new object: this user owns it, and nobody else may open it. Not inherited by children.
/// \throws sharedmem::error  what the system refused.
class for_this_user {
 public:
  for_this_user();
  for_this_user(const for_this_user&) = delete;
  for_this_user& operator=(const for_this_user&) = delete;
  ~for_this_user();
  SECURITY_ATTRIBUTES* get() noexcept { return &attributes_; }

 private:
  SECURITY_ATTRIBUTES attributes_{};
};

/// Whether this user owns a kernel object, which was opened with READ_CONTROL.
/// \throws sharedmem::error  what the system refused.
bool is_owned_by_this_user(HANDLE object);

}  // namespace sharedmem::os
