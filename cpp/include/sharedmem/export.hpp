/// \file
/// Marks what the library shows; everything else stays hidden.
#pragma once

#if !defined(__linux__)
#error "sharedmem: this release supports Linux only"
#endif

#if defined(__GNUC__)
#define SHAREDMEM_API __attribute__((visibility("default")))
#define SHAREDMEM_HIDDEN __attribute__((visibility("hidden")))
#else
#define SHAREDMEM_API
#define SHAREDMEM_HIDDEN
#endif
