"""Feast is the interface, Reel is the engine: a repository made from the declarations, and a plug-in to answer it."""
