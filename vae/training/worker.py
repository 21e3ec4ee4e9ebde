"""One of several processes that train together: python -m vae.training.worker FOLDER."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from vae.networks import VAE
from vae.training.checkpoint import State, load_state, save_state
from vae.training.history import NotFinite
from vae.training.processes import read_job
from vae.training.trainer import train


def main() -> None:
    """Train; the first process writes the checkpoint after every epoch, says so, and waits to be told to go on."""
    first = int(os.environ["LOCAL_RANK"]) == 0
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    if not first:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    job, checkpoint = read_job(Path(sys.argv[1]))
    state = load_state(checkpoint, job.fingerprint())
    if state is None:
        raise SystemExit(f"{checkpoint} is not the state that this training starts from")

    def tell(what: dict[str, Any]) -> None:
        print(json.dumps(what), file=answers, flush=True)

    def keep(after: State, network: VAE) -> None:
        save_state(checkpoint, after)
        tell({"epoch": after.epochs_done})
        if not sys.stdin.readline():
            raise SystemExit("whoever started this training is gone")

    try:
        train(job, state, keep)
    except NotFinite as found:
        if first:
            tell({"epoch": found.epoch, "step": found.step, "what": found.what})


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
