"""What kernels run on: compiler and cache, threads, memory, and the capture of whole steps."""
