"""Runtime support for kernels: compiler, cache, threads, memory, and the capture of steps."""
