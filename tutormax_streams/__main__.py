"""`python -m tutormax_streams` is `tutormax-streams`."""

from __future__ import annotations

from tutormax_streams.cli import main

if __name__ == "__main__":
    main()
