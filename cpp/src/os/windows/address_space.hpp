/// \file
/// Windows: maps sections at aligned addresses. Private to this folder.
#pragma once

#include <cstddef>

#include "os/windows/system.hpp"

namespace sharedmem::os {

/// Maps a whole section at an address that is a multiple of `huge_page_size`.
/// \param access  FILE_MAP_READ, or FILE_MAP_READ | FILE_MAP_WRITE.
/// \param text    how error messages name the section.
/// \throws sharedmem::error  ENOMEM: no address space.
std::byte* map_view(HANDLE section, std::size_t bytes, DWORD access, const std::string& text);

}  // namespace sharedmem::os
