"""Register the deployments and automations with the Prefect server of the environment.

`python -m deployments.register` is what the compose file runs at each start. The work pool is made when it is missing,
as a pool of processes; one that is there, of another kind, stays as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import gettempdir

from flows.services.registration import POOL, Registry, deploy


def main() -> None:
    """Make the pool, then what it works on."""
    prefect = [sys.executable, "-m", "prefect", "work-pool"]
    known = subprocess.run([*prefect, "inspect", POOL], capture_output=True, check=False).returncode == 0
    if not known:
        subprocess.run([*prefect, "create", POOL, "--type", "process"], check=True)
    deploy(os.environ, Path(gettempdir()))
    Registry(os.environ["PREFECT_API_URL"], os.environ.get("PREFECT_API_AUTH_STRING")).automate()


if __name__ == "__main__":
    main()
