# Declares nothing: see sharedmem.array and sharedmem.libsharedmem.
