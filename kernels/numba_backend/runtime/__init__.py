"""How kernels are compiled, cached, given threads and memory, captured and replayed."""
