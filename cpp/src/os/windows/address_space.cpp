/// Windows: address ranges, and operations on their pages.
#include "os/windows/address_space.hpp"

#include <cerrno>
#include <cstdint>

#include "os/pages.hpp"

namespace sharedmem::os {
namespace {

/// DiscardVirtualMemory exists since Windows 8.1. Older systems and Wine only have MEM_RESET.
using discard_function = DWORD(WINAPI*)(PVOID, SIZE_T);

}  // namespace

// The system aligns views to 64 KiB only. To get a larger alignment, this function reserves a range that is large enough,
// releases it, and maps the section at an aligned address in it. Another thread may take that address in between; then
// it tries again.
std::byte* map_view(HANDLE section, std::size_t bytes, DWORD access, const std::string& text) {
  constexpr int tries = 16;
  for (int i = 0;; ++i) {
    void* const room = ::VirtualAlloc(nullptr, bytes + huge_page_size, MEM_RESERVE, PAGE_NOACCESS);
    if (room == nullptr)
      throw system_error_of(::GetLastError(), "VirtualAlloc",
                            bytes_text(bytes + huge_page_size) + " of address space for " + text);
    const std::uintptr_t first = reinterpret_cast<std::uintptr_t>(room) + huge_page_size - 1;
    void* const aligned = reinterpret_cast<void*>(first / huge_page_size * huge_page_size);
    ::VirtualFree(room, 0, MEM_RELEASE);
    if (void* const view = ::MapViewOfFileEx(section, access, 0, 0, bytes, aligned); view != nullptr)
      return static_cast<std::byte*>(view);
    const DWORD code = ::GetLastError();
    if (code != ERROR_INVALID_ADDRESS || i + 1 == tries)
      throw system_error_of(code, "MapViewOfFileEx", text + ", " + bytes_text(bytes));
  }
}

std::size_t page_size() noexcept {
  SYSTEM_INFO info;
  ::GetSystemInfo(&info);
  return info.dwPageSize;
}

// No attempt is needed to find out: the system may always keep the pages, and their contents become undefined.
bool punching_works() noexcept { return true; }

bool punch(std::byte* base, std::size_t bytes) noexcept {
  static const auto discard = find_function<discard_function>(L"kernel32.dll", "DiscardVirtualMemory");
  if (discard != nullptr && discard(base, bytes) == ERROR_SUCCESS) return true;
  return ::VirtualAlloc(base, bytes, MEM_RESET, PAGE_READWRITE) != nullptr;
}

bool forbid(std::byte* base, std::size_t bytes) noexcept {
  // The pages are committed first: uncommitted pages cannot be protected, and would become accessible as soon as another
  // process committed them.
  DWORD before = 0;
  return ::VirtualAlloc(base, bytes, MEM_COMMIT, PAGE_READWRITE) != nullptr &&
         ::VirtualProtect(base, bytes, PAGE_NOACCESS, &before);
}

// Large pages are not used: they need a privilege, and all of them are committed when the section is created.
bool want_huge(std::byte*, std::size_t) noexcept { return false; }
int collapse(std::byte*, std::size_t) noexcept { return EINVAL; }
int fault_in(std::byte*, std::size_t) noexcept { return EINVAL; }

}  // namespace sharedmem::os
