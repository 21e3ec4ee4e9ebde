"""What a network has learned, in numbers and decoded tiles: how good it is, what its latent holds, what it makes up."""

from vae.diagnostics.diagnosis import Diagnosis, Pictures, diagnose

__all__ = ["Diagnosis", "Pictures", "diagnose"]
