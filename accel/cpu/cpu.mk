# How the CPU kernels are compiled. Included by the Makefile.
