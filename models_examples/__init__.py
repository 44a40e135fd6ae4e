"""Example models, and the tools that build their images and judge their output."""
