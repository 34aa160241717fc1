"""Memory that a training step frees is there for the next one."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
{imports}
np.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc hands large blocks back at once")
def test_blocks_of_a_training_step_are_not_cleared_anew():
    def faults(imports: str) -> int:
        return int(subprocess.check_output([sys.executable, "-c", PROGRAM.format(imports=imports)]))

    assert faults("import medic.modeling") < faults("") / 10  # pages of 4 KiB or of 2 MiB, as the system gives them
