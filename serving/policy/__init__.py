"""Loads a bundle and computes actions from observations; knows neither HTTP nor the registry."""
