/// \file
/// Windows: its header, handles that close themselves, and its errors as this library tells them. Private to this folder.
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

/// Owns a handle of the kernel; NULL if empty. Move-only.
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

/// The errno value that says the same as a code of GetLastError, as nearly as there is one.
int errno_of(DWORD code) noexcept;

/// What the system refused, with its own code and text: `call` is the function's name.
error system_error_of(DWORD code, const char* call, const std::string& object);

/// A function that not every Windows, nor Wine, has; null: there is none. The library is loaded already.
template <class Function>
Function find_function(const wchar_t* library, const char* name) noexcept {
  const HMODULE where = ::GetModuleHandleW(library);
  return where == nullptr
             ? nullptr
             : reinterpret_cast<Function>(reinterpret_cast<void*>(::GetProcAddress(where, name)));
}

/// For messages: "123 bytes".
inline std::string bytes_text(unsigned long long bytes) { return std::to_string(bytes) + " bytes"; }

/// UTF-8 from and to what the system's functions take.
/// \throws std::invalid_argument  `text` is no UTF-8.
std::wstring wide(std::string_view text);
std::string narrow(std::wstring_view text);

}  // namespace sharedmem::os
