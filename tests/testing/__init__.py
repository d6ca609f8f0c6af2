"""Tests of `grouper.testing`."""
