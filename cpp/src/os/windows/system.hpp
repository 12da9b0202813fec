/// \file
/// Windows: includes the system's header; handles that are closed automatically; the system's errors as errors of this
/// library. Private to this folder.
#pragma once

#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>

#include <winternl.h>

#include <string>
#include <string_view>
#include <utility>

#include <sharedmem/error.hpp>

namespace sharedmem::os {

/// Owns a handle of a kernel object; NULL if it is empty. Move-only.
class kernel_handle {
 public:
  kernel_handle() noexcept = default;
  explicit kernel_handle(HANDLE value) noexcept : value_{value} {}
  kernel_handle(kernel_handle&& other) noexcept : value_{std::exchange(other.value_, nullptr)} {}
  kernel_handle& operator=(kernel_handle&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  ~kernel_handle() {
    if (*this) ::CloseHandle(value_);
  }
  [[nodiscard]] HANDLE get() const noexcept { return value_; }
  HANDLE release() noexcept { return std::exchange(value_, nullptr); }
  explicit operator bool() const noexcept { return value_ != nullptr && value_ != INVALID_HANDLE_VALUE; }

 private:
  HANDLE value_ = nullptr;
};

/// The errno value whose meaning is closest to that of a code from GetLastError.
int errno_of(DWORD code) noexcept;

/// An error for a call that failed: it contains the system's code and text.
/// \param call    the name of the system's function.
/// \param object  what the function was called for.
error system_error_of(DWORD code, const char* call, const std::string& object);

/// Looks up a function that some versions of Windows, or Wine, lack. The library must be loaded already.
/// \return  null: there is no such function.
template <class Function>
Function find_function(const wchar_t* library, const char* name) noexcept {
  const HMODULE where = ::GetModuleHandleW(library);
  return where == nullptr
             ? nullptr
             : reinterpret_cast<Function>(reinterpret_cast<void*>(::GetProcAddress(where, name)));
}

/// For error messages: "123 bytes".
inline std::string bytes_text(unsigned long long bytes) { return std::to_string(bytes) + " bytes"; }

/// Convert between UTF-8 and the UTF-16 that the system's functions take.
/// \throws std::invalid_argument  `text` is not valid UTF-8.
std::wstring wide(std::string_view text);
std::string narrow(std::wstring_view text);

}  // namespace sharedmem::os
