/// Windows: identifies the user by its security identifier (SID).
#include "os/windows/user.hpp"

#include <aclapi.h>
#include <sddl.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "os/identity.hpp"

namespace sharedmem {
namespace os {
namespace {

/// Room for the answer to GetTokenInformation(TokenUser): a pointer to a SID, and behind it that SID.
struct user_record {
  alignas(TOKEN_USER) std::byte room[sizeof(TOKEN_USER) + SECURITY_MAX_SID_SIZE];

  [[nodiscard]] PSID sid() noexcept { return reinterpret_cast<TOKEN_USER*>(room)->User.Sid; }
};

/// The token of the calling thread if it impersonates a user, else that of the process.
kernel_handle token(bool& of_thread) noexcept {
  HANDLE found = nullptr;
  of_thread = ::OpenThreadToken(::GetCurrentThread(), TOKEN_QUERY, TRUE, &found) != 0;
  if (!of_thread && !::OpenProcessToken(::GetCurrentProcess(), TOKEN_QUERY, &found)) found = nullptr;
  return kernel_handle{found};
}

bool ask(user_record& user, bool& of_thread) noexcept {
  const kernel_handle mine = token(of_thread);
  DWORD used = 0;
  return mine && ::GetTokenInformation(mine.get(), TokenUser, user.room, sizeof user.room, &used);
}

struct local_memory {
  void* at = nullptr;
  ~local_memory() { ::LocalFree(at); }
};

}  // namespace

for_this_user::for_this_user() {
  user_record user;
  bool of_thread = false;
  if (!ask(user, of_thread))
    throw system_error_of(::GetLastError(), "GetTokenInformation", "the user of this process");
  local_memory text;
  LPWSTR sid = nullptr;
  if (!::ConvertSidToStringSidW(user.sid(), &sid))
    throw system_error_of(::GetLastError(), "ConvertSidToStringSid", "the user of this process");
  text.at = sid;
  // The owner, and an access list that inherits nothing and grants everything to this user only.
  const std::wstring wish = std::wstring(L"O:") + sid + L"D:P(A;;GA;;;" + sid + L")";
  if (!::ConvertStringSecurityDescriptorToSecurityDescriptorW(wish.c_str(), SDDL_REVISION_1,
                                                              &attributes_.lpSecurityDescriptor, nullptr))
    throw system_error_of(::GetLastError(), "ConvertStringSecurityDescriptorToSecurityDescriptor",
                          narrow(wish));
  attributes_.nLength = sizeof attributes_;
  attributes_.bInheritHandle = FALSE;
}

for_this_user::~for_this_user() { ::LocalFree(attributes_.lpSecurityDescriptor); }

bool is_owned_by_this_user(HANDLE object) {
  user_record user;
  bool of_thread = false;
  if (!ask(user, of_thread))
    throw system_error_of(::GetLastError(), "GetTokenInformation", "the user of this process");
  PSID owner = nullptr;
  local_memory descriptor;
  const DWORD code = ::GetSecurityInfo(object, SE_KERNEL_OBJECT, OWNER_SECURITY_INFORMATION, &owner, nullptr,
                                       nullptr, nullptr, &descriptor.at);
  if (code != ERROR_SUCCESS) throw system_error_of(code, "GetSecurityInfo", "the owner of a section");
  return owner != nullptr && ::EqualSid(owner, user.sid());
}

}  // namespace os

// The user of the process never changes, so the answer is kept. A thread that impersonates another user has to ask.
std::uint32_t effective_user() noexcept {
  static std::atomic<std::uint64_t> known{0};  // bit 32 is set once it is known
  HANDLE impersonated = nullptr;
  const bool acts = ::OpenThreadToken(::GetCurrentThread(), TOKEN_QUERY, TRUE, &impersonated) != 0;
  const os::kernel_handle closer{impersonated};
  if (const std::uint64_t seen = known.load(std::memory_order_relaxed); !acts && seen != 0)
    return static_cast<std::uint32_t>(seen);
  os::user_record user;
  bool of_thread = false;
  if (!os::ask(user, of_thread)) return 0;
  std::uint32_t hash = 0x811c9dc5U;  // FNV-1a
  const auto* const bytes = static_cast<const unsigned char*>(user.sid());
  for (DWORD i = 0; i < ::GetLengthSid(user.sid()); ++i) hash = (hash ^ bytes[i]) * 0x01000193U;
  if (!of_thread) known.store(std::uint64_t{1} << 32 | hash, std::memory_order_relaxed);
  return hash;
}

}  // namespace sharedmem
