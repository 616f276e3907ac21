"""Python imports this at start where this directory is on the path: its clock is off by SHIFT seconds."""

import os
import time

SHIFT = int(os.environ["SHIFT"])
true_time, true_time_ns = time.time, time.time_ns
time.time = lambda: true_time() + SHIFT
time.time_ns = lambda: true_time_ns() + SHIFT * 1_000_000_000
