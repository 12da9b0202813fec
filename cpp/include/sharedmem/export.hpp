/// \file
/// Marks the symbols that the library exports; all others are hidden.
#pragma once

#if !defined(__linux__) && !defined(_WIN32)
#error "sharedmem: this release supports Linux and Windows only"
#endif

#if defined(_WIN32)
#if defined(SHAREDMEM_BUILDING)
#define SHAREDMEM_API __declspec(dllexport)
#else
#define SHAREDMEM_API __declspec(dllimport)
#endif
#define SHAREDMEM_HIDDEN
#elif defined(__GNUC__)
#define SHAREDMEM_API __attribute__((visibility("default")))
#define SHAREDMEM_HIDDEN __attribute__((visibility("hidden")))
#else
#define SHAREDMEM_API
#define SHAREDMEM_HIDDEN
#endif
