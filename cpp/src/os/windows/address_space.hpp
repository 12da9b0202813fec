/// \file
/// Windows: views of sections at aligned addresses. Private to this folder.
#pragma once

#include <cstddef>

#include "os/windows/system.hpp"

namespace sharedmem::os {

/// The view, whole, of a section of so many bytes, at a multiple of `huge_page_size`.
/// \param access  FILE_MAP_READ, or that and FILE_MAP_WRITE.
/// \param text    what messages call the section.
/// \throws sharedmem::error  ENOMEM: no address space.
std::byte* map_view(HANDLE section, std::size_t bytes, DWORD access, const std::string& text);

}  // namespace sharedmem::os
