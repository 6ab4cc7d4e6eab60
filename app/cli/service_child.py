"""A service that is measured (`python -m app.cli.service_child`): it lives only as long as whoever started it."""

import os

from app.processes import child


def main() -> None:
    """Serve with the settings of the job, and with none of this process's own."""
    job = child.receive()
    for name in [name for name in os.environ if name.startswith("KRON_")]:
        del os.environ[name]
    os.environ.update(job["environment"])
    # Here, so that the end of the parent is noticed while this is still being imported.
    from app.cli.main import main as kronserve

    raise SystemExit(kronserve(["serve"]))


if __name__ == "__main__":
    main()
