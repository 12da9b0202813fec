# Nothing by itself: see sharedmem.array and sharedmem.libsharedmem.
