"""Figures → pictures and pages."""
