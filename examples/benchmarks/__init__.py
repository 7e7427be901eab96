"""Measurements on a GPU: Einfall beside the kernels that people use today."""
