"""Entry point of ``python -m kronmodel`` and, in each process, of ``torchrun -m kronmodel``."""

from __future__ import annotations

import sys

from kronmodel.cli.main import main

__all__ = []

if __name__ == "__main__":
    sys.exit(main())
