/// \file
/// Windows: the user of this process, and the protection of objects from other users. Private to this folder.
#pragma once

#include "os/windows/system.hpp"

namespace sharedmem::os {

/// Security attributes for a new object: this user owns it, no other user may open it, and child processes do not
/// inherit its handle.
/// The constructor throws sharedmem::error if the system refuses a call.
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

/// Whether this user owns a kernel object.
/// \param object  a handle with the access right READ_CONTROL.
/// \throws sharedmem::error  the system refused a call.
bool is_owned_by_this_user(HANDLE object);

}  // namespace sharedmem::os
