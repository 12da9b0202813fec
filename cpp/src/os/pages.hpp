/// \file
/// Pages of this process's address space. Ranges are whole pages; nothing here throws or allocates memory.
#pragma once

#include <cstddef>

namespace sharedmem::os {

/// Bytes of a huge page on x86-64 and on AArch64 with small pages of 4 KiB. Views of segments are aligned to it.
inline constexpr std::size_t huge_page_size = std::size_t{2} << 20;

/// Bytes of a page.
std::size_t page_size() noexcept;

/// Gives the pages of a range back to the system, for every process that has them. They read as 0 afterwards if
/// `discarded_is_zero`; else their bytes are unspecified until they are written. False: not done.
bool punch(std::byte* base, std::size_t bytes) noexcept;
/// Whether `punch` has its effect here. Tried once, with a page of memory: best called early.
bool punching_works() noexcept;
/// Makes a range inaccessible in this process. False: not done.
bool forbid(std::byte* base, std::size_t bytes) noexcept;
/// Requests huge pages in a range from now on. False: not done.
bool want_huge(std::byte* base, std::size_t bytes) noexcept;
/// Makes huge pages of a range that has pages already. 0, or an errno value; EINVAL: this system cannot.
int collapse(std::byte* base, std::size_t bytes) noexcept;
/// Makes all pages of a range present and writable. 0, or an errno value; EINVAL: this system cannot.
int fault_in(std::byte* base, std::size_t bytes) noexcept;

}  // namespace sharedmem::os
