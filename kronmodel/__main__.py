"""``python -m kronmodel``, which is also what ``torchrun -m kronmodel`` starts in each process."""

from __future__ import annotations

import sys

from kronmodel.cli.main import main

__all__ = []

if __name__ == "__main__":
    sys.exit(main())
