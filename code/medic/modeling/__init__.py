"""Networks: their training, their evaluation, and what is known of their answers."""

import ctypes
import sys

if sys.platform == "linux":
    # Each step of a training frees what the next one asks for again. As it comes, glibc hands large blocks back to the
    # system, which clears them anew: a step of EfficientNet-Lite0 on a processor then takes 1.2 times as long.
    _allocator = ctypes.CDLL(None)
    if hasattr(_allocator, "mallopt"):  # glibc; the numbers are M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of its malloc.h
        for _parameter in (-1, -3):
            _allocator.mallopt(_parameter, 2**30)
