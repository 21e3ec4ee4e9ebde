"""The detector as an MLflow model: MLflow runs this file when it loads one, so nothing is unpickled."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel, PythonModelContext

from vae.detector import Detector


class ServedDetector(PythonModel):
    """Scores the tiles of one scene, physical values, looked at alone; NaN marks pixels that do not count."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle that was logged with the model."""
        self.detector = Detector.load(Path(context.artifacts["detector"]))

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Scores, p-values and flags of (N, C, H, W) tiles."""
        values = np.asarray(model_input, dtype=np.float32)
        scores = self.detector.score(values, np.asarray(np.isfinite(values).all(axis=1)))
        judged = self.detector.judge(scores.kind, scores.score)
        return {"score": judged.score, "p_value": judged.p_value, "flagged": judged.flagged}


mlflow.models.set_model(ServedDetector())
