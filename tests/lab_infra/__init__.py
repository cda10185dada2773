"""Tests of the lab itself: what it promises to those who stand on it."""
