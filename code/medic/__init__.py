"""Medical image classification, from pixels to endpoint."""

import os

# Threads of OpenMP that wait spin by default: beside other work, a training then made 0.29 steps a second instead of
# 0.95. This must be set before torch is loaded, and everything here imports medic first.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
