"""Recipes of pretraining, one TOML file each (see :mod:`squeezebert.training.recipes`)."""
