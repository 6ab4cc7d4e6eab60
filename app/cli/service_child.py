"""Child process that runs a service to be measured; it ends when its parent does."""

import os

from app.processes import child


def main() -> None:
    """Serve with the job's `KRON_...` variables instead of those in this process's environment."""
    job = child.receive()
    for name in [name for name in os.environ if name.startswith("KRON_")]:
        del os.environ[name]
    os.environ.update(job["environment"])
    # Not at the top: from `receive` on, this process ends with its parent, also during this long import.
    from app.cli.main import main as kronserve

    raise SystemExit(kronserve(["serve"]))


if __name__ == "__main__":
    main()
