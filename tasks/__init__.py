"""The steps: one module each, and the only layer that knows Prefect, MLflow and Great Expectations."""

from configs import quiet

quiet.apply()
