/// Windows: addresses and pages.
#include "os/windows/address_space.hpp"

#include <cerrno>
#include <cstdint>

#include "os/pages.hpp"

namespace sharedmem::os {
namespace {

/// Windows 8.1 and later. Others, and Wine, have MEM_RESET.
using discard_function = DWORD(WINAPI*)(PVOID, SIZE_T);

}  // namespace

// The system aligns views to 64 KiB. So a place is looked for, and given back for the view: another thread may take it
// in between, and then the search is made anew.
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

// Nothing has to be tried: where the system keeps the pages it is still free to, and their bytes are anything.
bool punching_works() noexcept { return true; }

bool punch(std::byte* base, std::size_t bytes) noexcept {
  static const auto discard = find_function<discard_function>(L"kernel32.dll", "DiscardVirtualMemory");
  if (discard != nullptr && discard(base, bytes) == ERROR_SUCCESS) return true;
  return ::VirtualAlloc(base, bytes, MEM_RESET, PAGE_READWRITE) != nullptr;
}

bool forbid(std::byte* base, std::size_t bytes) noexcept {
  // What has no memory cannot be protected, and would be accessible again once another process promised it.
  DWORD before = 0;
  return ::VirtualAlloc(base, bytes, MEM_COMMIT, PAGE_READWRITE) != nullptr &&
         ::VirtualProtect(base, bytes, PAGE_NOACCESS, &before);
}

// Large pages need a privilege, and are promised whole when the section is made.
bool want_huge(std::byte*, std::size_t) noexcept { return false; }
int collapse(std::byte*, std::size_t) noexcept { return EINVAL; }
int fault_in(std::byte*, std::size_t) noexcept { return EINVAL; }

}  // namespace sharedmem::os
