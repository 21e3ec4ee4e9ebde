"""Variational autoencoders of parts that are chosen one by one: trunk, latent, posterior, likelihood, conditions."""

from vae.networks.conditions import Given, given_of
from vae.networks.likelihoods import Likelihood
from vae.networks.posteriors import Draw
from vae.networks.vae import VAE, Passed, build

__all__ = ["VAE", "Draw", "Given", "Likelihood", "Passed", "build", "given_of"]
