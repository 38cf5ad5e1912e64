"""Measurements of the product, as promised in the README: ``python -m benchmarks`` runs them all."""
