"""Fused forms for Torch tensors on CUDA, written in Triton: an algorithm a file."""
