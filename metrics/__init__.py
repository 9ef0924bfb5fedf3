"""Measures of a vocoder, and the pages and pictures that show them."""
